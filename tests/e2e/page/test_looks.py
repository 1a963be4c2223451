"""Every width, dark and light, without a mouse, and for those who can't see it."""

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.e2e.page.conftest import watch
from tests.e2e.page.test_pictures import FIVE

WIDTHS = (320, 768, 1440)

# What has the focus, or what stands for it, has an outline.
FOCUS = """[document.activeElement, document.activeElement.parentElement]
  .some((element) => getComputedStyle(element).outlineStyle === "solid")"""


def serious(page: Page) -> list[tuple[str, list[str]]]:
    """What axe-core finds that keeps somebody out: the rule, and where it is broken."""
    found = Axe().run(page).response["violations"]
    return [
        (each["id"], [node["html"] for node in each["nodes"]])
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_and_keeps_nobody_out(
    browser: Browser, url: str, errors: list[str], width: int, scheme: Any
) -> None:
    options: dict[str, Any] = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    with browser.new_context(**options, reduced_motion="reduce") as context:
        page = context.new_page()
        watch(page, errors)
        page.goto(url)
        assert serious(page) == []
        page.get_by_role("button", name="Example: 5").click()
        expect(page.locator("#digit")).to_have_text("5")
        page.get_by_role("button", name="Why?").click()
        expect(page.locator("main[data-why]")).to_be_visible()
        assert serious(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert errors == []


def test_the_answer_is_seen_while_one_draws_on_a_phone(browser: Browser, url: str) -> None:
    with browser.new_context(viewport={"width": 320, "height": 640}) as context:
        page = context.new_page()
        page.goto(url)
        page.get_by_role("button", name="Example: 5").click()
        page.evaluate("scrollTo(0, 0)")
        for part in ("#drawing", "#digit", "#bars"):
            expect(page.locator(part)).to_be_in_viewport(ratio=1)


def test_trouble_keeps_nobody_out_either(page: Page, errors: list[str]) -> None:
    page.get_by_role("button", name="Example: 5").click()
    expect(page.locator("#digit")).to_have_text("5")
    page.context.set_offline(True)
    page.get_by_role("button", name="Example: 3").click()
    expect(page.locator("#trouble")).not_to_be_empty()
    assert serious(page) == []
    page.context.set_offline(False)
    expect(page.locator("#digit")).to_have_text("3")
    errors.clear()


def test_dark_is_dark_and_the_network_still_gets_dark_ink(page: Page) -> None:
    page.emulate_media(color_scheme="dark")
    page.get_by_role("button", name="Example: 8").click()
    expect(page.locator("#digit")).to_have_text("8")
    assert _brightness(page, "body", "backgroundColor") < 60
    assert _brightness(page, "#drawing", "color") > 200


def _brightness(page: Page, selector: str, what: str) -> float:
    colour: str = page.locator(selector).evaluate(f"element => getComputedStyle(element).{what}")
    red, green, blue = (int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
    return (red + green + blue) / 3


def test_without_a_mouse(page: Page) -> None:
    def press_until(name: str) -> None:
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.id") == name:
                return
        pytest.fail(f"{name} can't be reached")

    # From the first of them on Chromium asks the test and not the screen.
    page.on("filechooser", lambda _: None)
    press_until("Your drawing")
    page.keyboard.press("7")
    expect(page.locator("#digit")).to_have_text("7")
    page.keyboard.press("2")
    expect(page.locator("#digit")).to_have_text("2")
    page.keyboard.press("Control+z")
    expect(page.locator("#digit")).to_have_text("7")
    page.keyboard.press("Delete")
    expect(page.locator("#digit")).to_be_empty()
    press_until("Example: 4")
    page.keyboard.press("Enter")
    expect(page.locator("#digit")).to_have_text("4")
    press_until("why")
    page.keyboard.press("Space")
    expect(page.locator("main[data-why]")).to_be_visible()
    press_until("file")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(FIVE)
    expect(page.locator("#digit")).to_have_text("5")


def test_the_focus_is_visible_wherever_it_is(page: Page) -> None:
    page.locator("#drawing").focus()
    page.keyboard.press("4")
    expect(page.get_by_role("button", name="Why?")).to_be_enabled()
    seen = []
    while page.evaluate("document.activeElement !== document.body"):
        seen.append(page.evaluate(FOCUS))
        page.keyboard.press("Tab")
    assert len(seen) == 17
    assert all(seen)


def test_a_screen_reader_is_told_the_answer_once_the_drawing_rests(page: Page) -> None:
    page.get_by_role("button", name="Example: 4").click()
    expect(page.get_by_role("status").filter(has_text="This is a 4")).to_have_count(1)
    page.get_by_role("button", name="Clear").click()
    expect(page.get_by_role("status").filter(has_text="This is")).to_have_count(0)


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ({5: 0.97, 3: 0.03}, "This is a 5."),
        ({5: 0.7, 3: 0.2, 8: 0.1}, "This is a 5, perhaps a 3."),
        ({8: 0.45, 3: 0.4, 5: 0.15}, "Hard to tell: an 8, or a 3?"),
    ],
)
def test_doubt_is_told_in_words(page: Page, shares: dict[int, float], words: str) -> None:
    probabilities = [shares.get(digit, 0.0) for digit in range(10)]
    call = "async (shares) => (await import('/static/words.js')).inWords(shares)"
    assert page.evaluate(call, probabilities) == words
