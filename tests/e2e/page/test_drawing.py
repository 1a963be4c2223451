"""Drawing with the pen."""

import pytest
from playwright.sync_api import Browser, Page, Request, Route, expect

from tests.e2e.page.conftest import watch
from tests.e2e.page.pen import STROKES, on_screen, press, write

WIDTH_OF_THE_MIDDLE = """canvas => {
  const row = canvas.getContext("2d").getImageData(0, canvas.height / 2, canvas.width, 1).data;
  return row.filter((value, index) => index % 4 == 3 && value > 127).length;
}"""


@pytest.mark.parametrize("digit", range(10))
def test_each_digit_is_read(page: Page, digit: int) -> None:
    write(page, digit)
    expect(page.locator("#digit")).to_have_text(str(digit))
    expect(page.locator("#bars .first span")).to_have_text(str(digit))
    expect(page.locator("#source")).to_contain_text("Version 1 answered in")
    assert page.locator("#seen").evaluate("image => [image.naturalWidth, image.naturalHeight]") == [28, 28]


def test_each_digit_is_read_on_a_phone(browser: Browser, url: str, errors: list[str]) -> None:
    """By touch; the page must not scroll meanwhile."""
    with browser.new_context(viewport={"width": 320, "height": 640}, has_touch=True, is_mobile=True) as phone:
        page = phone.new_page()
        watch(page, errors)
        page.goto(url)
        expect(page.locator("#camera")).to_be_visible()
        touch = phone.new_cdp_session(page)
        for digit, strokes in STROKES.items():
            for stroke in strokes:
                for index, (x, y) in enumerate(on_screen(page, stroke)):
                    kind = "touchMove" if index else "touchStart"
                    event = {"type": kind, "touchPoints": [{"x": x, "y": y}]}
                    touch.send("Input.dispatchTouchEvent", event)
                touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
            expect(page.locator("#digit")).to_have_text(str(digit))
            page.get_by_role("button", name="Clear").click()
        assert page.evaluate("scrollY") == 0
    assert errors == []


def test_it_is_read_while_it_is_drawn(page: Page) -> None:
    press(page, STROKES[1][0])
    expect(page.locator("#digit")).to_have_text("1")
    page.mouse.up()


def test_one_request_at_a_time_is_out(page: Page) -> None:
    out: set[Request] = set()
    most = 0

    def begin(request: Request) -> None:
        nonlocal most
        if "/v1/predict" in request.url:
            out.add(request)
            most = max(most, len(out))

    page.on("request", begin)
    page.on("requestfinished", lambda request: out.discard(request))
    page.on("requestfailed", lambda request: out.discard(request))
    for digit in (2, 3, 5):
        write(page, digit)
    expect(page.locator("#digit")).not_to_be_empty()
    assert most == 1


def test_undo_takes_back_a_stroke_and_a_clearing(page: Page) -> None:
    undo, clear = (page.get_by_role("button", name=name) for name in ("Undo", "Clear"))
    expect(undo).to_be_disabled()
    write(page, 1)
    expect(page.locator("#digit")).to_have_text("1")
    clear.click()
    expect(page.locator("#digit")).to_be_empty()
    expect(page.locator("#invitation")).to_be_visible()
    expect(clear).to_be_disabled()
    undo.click()
    expect(page.locator("#digit")).to_have_text("1")
    undo.click()
    expect(page.locator("#invitation")).to_be_visible()
    expect(undo).to_be_disabled()


def test_the_pen_is_as_wide_as_chosen(page: Page) -> None:
    widths = []
    for chosen in ("4", "12"):
        page.get_by_label("Width of the pen").fill(chosen)
        write(page, 1)
        page.wait_for_function("new Promise(requestAnimationFrame)")
        widths.append(page.locator("#drawing").evaluate(WIDTH_OF_THE_MIDDLE))
        page.get_by_role("button", name="Clear").click()
    assert widths[1] == pytest.approx(3 * widths[0], rel=0.1)


def test_an_answer_that_comes_after_a_clearing_is_dropped(page: Page) -> None:
    held: list[Route] = []
    page.route("**/v1/predict*", lambda route: held.append(route))
    with page.expect_request("**/v1/predict*"):
        write(page, 1)
    page.get_by_role("button", name="Clear").click()
    for route in held:
        route.continue_()
    page.wait_for_function("new Promise(resolve => setTimeout(() => resolve(true), 300))")
    expect(page.locator("#digit")).to_be_empty()


@pytest.mark.parametrize("digit", range(10))
def test_each_example_is_read_as_what_it_is(page: Page, digit: int) -> None:
    page.get_by_role("button", name=f"Example: {digit}").click()
    expect(page.locator("#digit")).to_have_text(str(digit))
