"""Drawing on the canvas: pen, undo, clear and examples."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Request, Route, expect

from tests.e2e.page.pen import STROKES, draw, draw_without_release, to_viewport

pytestmark = pytest.mark.e2e

STROKE_WIDTH_AT_CENTRE = """canvas => {
  const row = canvas.getContext("2d").getImageData(0, canvas.height / 2, canvas.width, 1).data;
  return row.filter((value, index) => index % 4 == 3 && value > 127).length;
}"""


def test_draw_each_digit_shows_prediction(page: Page) -> None:
    for digit in range(10):
        draw(page, digit)
        expect(page.locator(".reading")).to_have_text(str(digit))
        expect(page.locator(".bars .best span")).to_have_text(str(digit))
        expect(page.locator(".source")).to_contain_text("Version 1 answered in")
        size = page.locator(".answer img").evaluate("image => [image.naturalWidth, image.naturalHeight]")
        assert size == [28, 28]
        page.get_by_role("button", name="Clear").click()
        expect(page.locator(".reading")).to_be_empty()


def test_draw_by_touch_on_phone_shows_prediction_without_scrolling(open_page: Callable[..., Page]) -> None:
    page = open_page(viewport={"width": 320, "height": 640}, has_touch=True, is_mobile=True)
    expect(page.locator("#camera")).to_be_visible()
    touch = page.context.new_cdp_session(page)
    for digit, strokes in STROKES.items():
        for stroke in strokes:
            for index, (x, y) in enumerate(to_viewport(page, stroke)):
                kind = "touchMove" if index else "touchStart"
                event = {"type": kind, "touchPoints": [{"x": x, "y": y}]}
                touch.send("Input.dispatchTouchEvent", event)
            touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        expect(page.locator(".reading")).to_have_text(str(digit))
        page.get_by_role("button", name="Clear").click()
    assert page.evaluate("scrollY") == 0


def test_draw_pen_still_down_shows_prediction(page: Page) -> None:
    draw_without_release(page, STROKES[1][0])
    expect(page.locator(".reading")).to_have_text("1")
    page.mouse.up()


def test_draw_several_digits_sends_one_request_at_a_time(page: Page) -> None:
    inflight: set[Request] = set()
    max_inflight = 0

    def on_request(request: Request) -> None:
        nonlocal max_inflight
        if "/v1/read" in request.url:
            inflight.add(request)
            max_inflight = max(max_inflight, len(inflight))

    page.on("request", on_request)
    page.on("requestfinished", lambda request: inflight.discard(request))
    page.on("requestfailed", lambda request: inflight.discard(request))
    for digit in (2, 3, 5):
        draw(page, digit)
    expect(page.locator(".reading")).not_to_be_empty()
    assert max_inflight == 1


def test_undo_after_clear_and_stroke_restores_each_state(page: Page) -> None:
    undo, clear = (page.get_by_role("button", name=name) for name in ("Undo", "Clear"))
    expect(undo).to_be_disabled()
    draw(page, 1)
    expect(page.locator(".reading")).to_have_text("1")
    clear.click()
    expect(page.locator(".reading")).to_be_empty()
    expect(page.locator("#placeholder")).to_be_visible()
    expect(clear).to_be_disabled()
    undo.click()
    expect(page.locator(".reading")).to_have_text("1")
    undo.click()
    expect(page.locator("#placeholder")).to_be_visible()
    expect(undo).to_be_disabled()


def test_pen_width_tripled_triples_stroke_width(page: Page) -> None:
    widths = []
    for pen_width in ("3", "9"):
        page.get_by_label("Pen width").fill(pen_width)
        draw(page, 1)
        page.wait_for_function("new Promise(requestAnimationFrame)")
        widths.append(page.locator("#drawing").evaluate(STROKE_WIDTH_AT_CENTRE))
        page.get_by_role("button", name="Clear").click()
    assert widths[1] == pytest.approx(3 * widths[0], rel=0.1)


def test_clear_before_response_drops_prediction(page: Page) -> None:
    pending: list[Route] = []
    page.route("**/v1/read*", lambda route: pending.append(route))
    with page.expect_request("**/v1/read*"):
        draw(page, 1)
    page.get_by_role("button", name="Clear").click()
    for route in pending:
        route.continue_()
    page.wait_for_function("new Promise(resolve => setTimeout(() => resolve(true), 300))")
    expect(page.locator(".reading")).to_be_empty()


def test_pick_each_example_shows_its_digit(page: Page) -> None:
    for digit in range(10):
        page.get_by_role("button", name=f"Example: {digit}").click()
        expect(page.locator(".reading")).to_have_text(str(digit))
