"""Accessibility: axe-core's rules, colour schemes, keyboard, focus and screen readers."""

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.e2e.page.test_images import FIVE

pytestmark = pytest.mark.e2e

# True if the focused element, or its parent in place of a hidden input, has an outline.
HAS_FOCUS_OUTLINE = """[document.activeElement, document.activeElement.parentElement]
  .some((element) => getComputedStyle(element).outlineStyle === "solid")"""


def violations(page: Page) -> list[tuple[str, list[str]]]:
    """Return axe-core's serious and critical violations: the rule and the elements that break it."""
    results = Axe().run(page).response["violations"]
    return [
        (result["id"], [node["html"] for node in result["nodes"]])
        for result in results
        if result["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize(
    ("width", "scheme"), [(320, "light"), (320, "dark"), (768, "light"), (1440, "light"), (1440, "dark")]
)
def test_page_of_any_width_and_scheme_has_no_violations_and_no_overflow(
    open_page: Callable[..., Page], width: int, scheme: str
) -> None:
    page = open_page(
        viewport={"width": width, "height": 800},
        color_scheme=scheme,
        reduced_motion="reduce",
        has_touch=width == 320,
    )
    page.locator("body[data-ready]").wait_for()
    assert violations(page) == []
    page.get_by_role("button", name="Example: 5").click()
    expect(page.locator(".reading")).to_have_text("5")
    page.get_by_role("button", name="Why?").click()
    expect(page.locator("main[data-explained]")).to_be_visible()
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_page_with_error_has_no_violations(page: Page, console_errors: list[str]) -> None:
    page.get_by_role("button", name="Example: 5").click()
    expect(page.locator(".reading")).to_have_text("5")
    page.context.set_offline(True)
    page.get_by_role("button", name="Example: 3").click()
    expect(page.locator("#error")).not_to_be_empty()
    assert violations(page) == []
    page.context.set_offline(False)
    expect(page.locator(".reading")).to_have_text("3")
    console_errors.clear()


def test_dark_scheme_shows_light_ink_and_sends_dark_ink(page: Page) -> None:
    page.emulate_media(color_scheme="dark")
    page.get_by_role("button", name="Example: 8").click()
    expect(page.locator(".reading")).to_have_text("8")
    assert brightness(page, "body", "backgroundColor") < 60
    assert brightness(page, "#drawing", "color") > 200


def brightness(page: Page, selector: str, style: str) -> float:
    colour: str = page.locator(selector).evaluate(f"element => getComputedStyle(element).{style}")
    red, green, blue = (int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
    return (red + green + blue) / 3


def test_keyboard_alone_reaches_every_function(page: Page) -> None:
    def tab_to(name: str) -> None:
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.id") == name:
                return
        pytest.fail(f"{name} is out of reach of the keyboard")

    # With a listener, Chromium shows no file chooser of its own.
    page.on("filechooser", lambda _: None)
    tab_to("Your drawing")
    page.keyboard.press("7")
    expect(page.locator(".reading")).to_have_text("7")
    page.keyboard.press("2")
    expect(page.locator(".reading")).to_have_text("2")
    page.keyboard.press("Control+z")
    expect(page.locator(".reading")).to_have_text("7")
    page.keyboard.press("Delete")
    expect(page.locator(".reading")).to_be_empty()
    tab_to("Example: 4")
    page.keyboard.press("Enter")
    expect(page.locator(".reading")).to_have_text("4")
    tab_to("why")
    page.keyboard.press("Space")
    expect(page.locator("main[data-explained]")).to_be_visible()
    tab_to("file")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(FIVE)
    expect(page.locator(".reading")).to_have_text("5")


def test_focus_on_each_control_is_visible(page: Page) -> None:
    page.locator("#drawing").focus()
    page.keyboard.press("4")
    expect(page.get_by_role("button", name="Why?")).to_be_enabled()
    outlines = []
    while page.evaluate("document.activeElement !== document.body"):
        outlines.append(page.evaluate(HAS_FOCUS_OUTLINE))
        page.keyboard.press("Tab")
    # Canvas, four tools, "Why?", ten examples and the photograph.
    assert len(outlines) == 17
    assert all(outlines)


def test_screen_reader_after_drawing_hears_prediction_once(page: Page) -> None:
    page.get_by_role("button", name="Example: 4").click()
    expect(page.get_by_role("status").filter(has_text="This is a 4")).to_have_count(1)
    page.get_by_role("button", name="Clear").click()
    expect(page.get_by_role("status").filter(has_text="This is")).to_have_count(0)
