"""Accessibility of the page: rules, colour schemes, keyboard, focus and screen readers."""

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.page.accessibility import HAS_FOCUS_OUTLINE, assert_accessible
from tests.e2e.page.steps import explain, show_example
from tests.e2e.page.test_images import FIVE

pytestmark = pytest.mark.e2e


def test_page_before_and_after_the_explanation_is_accessible(page: Page) -> None:
    page.locator("body[data-ready]").wait_for()
    assert_accessible(page)
    show_example(page, "5")
    explain(page)
    assert_accessible(page)


def test_dark_scheme_shows_light_ink_and_sends_dark_ink(page: Page) -> None:
    page.emulate_media(color_scheme="dark")
    show_example(page, "8")
    assert brightness(page, "body", "backgroundColor") < 60
    assert brightness(page, "#drawing", "color") > 200


def brightness(page: Page, selector: str, style: str) -> float:
    colour: str = page.locator(selector).evaluate(f"element => getComputedStyle(element).{style}")
    red, green, blue = (int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
    return (red + green + blue) / 3


def test_keyboard_alone_reaches_every_function_with_visible_focus(page: Page) -> None:
    def tab_to(name: str) -> None:
        for _ in range(30):
            page.keyboard.press("Tab")
            assert page.evaluate(f"document.activeElement === document.body || {HAS_FOCUS_OUTLINE}")
            if page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.id") == name:
                return
        pytest.fail(f"{name} is out of reach of the keyboard")

    # With a listener, Chromium shows no file chooser of its own.
    page.on("filechooser", lambda _: None)
    tab_to("Your drawing")
    page.keyboard.press("7")
    expect(page.locator(".reading")).to_have_text("7")
    page.keyboard.press("2")
    expect(page.locator(".reading")).to_have_text("72")
    for key in ("Control+z", "2", "Backspace"):
        page.keyboard.press(key)
    expect(page.locator(".reading")).to_have_text("7")
    page.keyboard.press("Delete")
    expect(page.locator(".reading")).to_be_empty()
    tab_to("Example: 4")
    page.keyboard.press("Enter")
    expect(page.locator(".reading")).to_have_text("4")
    tab_to("why")
    page.keyboard.press("Space")
    expect(page.locator("main[data-explained]")).to_be_visible()
    tab_to("open")
    page.keyboard.press("Space")
    expect(page.locator(".layers li").first).to_be_visible()
    expect(page.get_by_role("button", name="Close")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#open")).to_be_focused()
    tab_to("share")
    page.keyboard.press("Enter")
    expect(page.get_by_role("radio", name="Link")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="curl")).to_be_checked()
    page.keyboard.press("Escape")
    tab_to("file")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(FIVE)
    expect(page.locator(".reading")).to_have_text("5")
