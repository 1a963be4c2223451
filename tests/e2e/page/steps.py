"""Steps of many tests: show an example, and explain its answer."""

from playwright.sync_api import Page, expect


def show_example(page: Page, name: str, text: str | None = None) -> None:
    """Click an example, and wait until it is read as the text, by default its name."""
    page.get_by_role("button", name=f"Example: {name}", exact=True).click()
    expect(page.locator(".reading")).to_have_text(name if text is None else text)


def explain(page: Page, on: str | None = None) -> None:
    """Click "Why?", and wait until the answer is explained on `strokes` or on an `image`, or on either."""
    page.get_by_role("button", name="Why?").click()
    expect(page.locator(f"main[data-explained={on}]" if on else "main[data-explained]")).to_be_visible()
