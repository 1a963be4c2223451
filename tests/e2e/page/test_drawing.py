"""Drawing on the canvas: pen, undo, clear and examples, also while the service is offline or slow."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from digit_core.images import to_png
from tests.e2e.page.accessibility import assert_accessible, violations
from tests.e2e.page.pen import STROKES, draw, draw_without_release, to_viewport
from tests.e2e.page.responses import reading_of, respond_with_lines
from tests.e2e.page.steps import show_example

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


@pytest.mark.parametrize(
    ("is_phone", "sizes"),
    [(True, [(320, 640), (390, 844)]), (False, [(800, 600), (1280, 800)])],
    ids=["phone", "desktop"],
)
def test_answer_is_in_view_without_scrolling(
    open_page: Callable[..., Page], is_phone: bool, sizes: list[tuple[int, int]]
) -> None:
    page = open_page(has_touch=is_phone)
    show_example(page, "5")
    for width, height in sizes:
        page.set_viewport_size({"width": width, "height": height})
        page.evaluate("scrollTo(0, 0)")
        for part in ("#drawing", ".reading", ".bars", ".answer img", "figcaption"):
            expect(page.locator(part)).to_be_in_viewport(ratio=1)


def test_draw_by_touch_on_phone_shows_prediction_and_tools_without_scrolling(
    open_page: Callable[..., Page],
) -> None:
    page = open_page(viewport={"width": 320, "height": 640}, has_touch=True, is_mobile=True)
    touch = page.context.new_cdp_session(page)
    for stroke in STROKES[4]:
        for index, (x, y) in enumerate(to_viewport(page, stroke)):
            event = {"type": "touchMove" if index else "touchStart", "touchPoints": [{"x": x, "y": y}]}
            touch.send("Input.dispatchTouchEvent", event)
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    expect(page.locator(".reading")).to_have_text("4")
    assert page.evaluate("scrollY") == 0
    assert violations(page) == []
    tools = page.locator("#tools")
    assert tools.inner_text().split("\n") == ["Undo", "Clear", "Pen width", "Image", "Camera"]
    for tool in tools.locator("> *").all():
        expect(tool).to_be_in_viewport(ratio=1)
        assert tool.evaluate("element => element.scrollWidth <= element.clientWidth + 1")
    tops = tools.locator("> *").evaluate_all("tools => tools.map((tool) => tool.getBoundingClientRect().top)")
    assert len(set(tops)) == 1


def test_draw_with_pen_down_has_one_request_in_flight_until_the_stroke_ends(page: Page) -> None:
    held: list[Route] = []
    page.route("**/v1/read*", lambda route: held.append(route))
    with page.expect_request("**/v1/read*"):
        draw_without_release(page, STROKES[1][0])
    page.wait_for_function("new Promise(resolve => setTimeout(() => resolve(true), 300))")
    assert len(held) == 1
    page.mouse.up()
    while len(held) < 2:
        page.wait_for_timeout(50)
    held[-1].fulfill(json=reading_of("1"))
    expect(page.locator(".reading")).to_have_text("1")


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


def test_empty_page_invites_and_each_example_is_read(page: Page) -> None:
    expect(page.locator("#demo path")).to_have_count(4)
    for name, text in (("photo", "202617"), ("five", "5"), ("squared paper", "1984")):
        show_example(page, name, text)
        page.get_by_role("button", name="Clear").click()
        expect(page.get_by_role("heading", name="Write, and watch the network read.")).to_be_visible()
    for digit in range(10):
        show_example(page, str(digit))


def test_keys_write_a_number_beside_what_is_drawn(page: Page) -> None:
    draw(page, 3)
    expect(page.locator(".reading")).to_have_text("3")
    page.locator("#drawing").focus()
    for text in ("30", "307", "3071"):
        page.keyboard.press(text[-1])
        expect(page.locator(".reading")).to_have_text(text)
    expect(page.locator("#boxes b")).to_have_text([*"3071"])
    for text in ("307", "30", "3"):
        page.keyboard.press("Backspace")
        expect(page.locator(".reading")).to_have_text(text)


def test_reload_and_link_show_the_same_drawing_and_images_have_no_link(
    page: Page, open_page: Callable[..., Page]
) -> None:
    draw(page, 4)
    expect(page.locator(".reading")).to_have_text("4")
    page.reload()
    expect(page.locator(".reading")).to_have_text("4")
    linked = open_page("/" + page.evaluate("location.hash"))
    expect(linked.locator(".bars")).to_have_text(page.locator(".bars").text_content() or "")
    linked.get_by_role("button", name="Undo").click()
    expect(linked.locator("#placeholder")).to_be_visible()
    assert "#" not in linked.url
    linked.goto(linked.url + "#drawing=4g.zz~.9v")
    expect(linked.locator("#placeholder")).to_be_visible()


def test_copied_calls_print_what_the_page_shows(page: Page, tmp_path: Path) -> None:
    printed: list[str] = []
    page.on("console", lambda message: printed.append(message.text))
    draw(page, 7)
    expect(page.locator(".reading")).to_have_text("7")
    page.get_by_role("button", name="Copy link or call").click()
    assert_accessible(page)
    dialog = page.get_by_role("dialog")

    def text_of(form: str) -> str:
        dialog.get_by_role("radio", name=form).check()
        return dialog.locator("pre").inner_text()

    assert text_of("Link") == page.url
    curl = subprocess.run(["bash", "-c", text_of("curl")], capture_output=True, check=True)
    assert json.loads(curl.stdout)["readings"][0]["text"] == "7"
    python = subprocess.run([sys.executable, "-c", text_of("Python")], capture_output=True, check=True)
    assert python.stdout.decode().strip() == "7"
    page.evaluate(f"async () => {{ {text_of('JavaScript')} }}")
    assert printed == ["7"]
    page.keyboard.press("Escape")
    # A picture that is too large for a command is named in place of its bytes.
    noise = np.random.default_rng(0).integers(0, 255, (300, 300), np.uint8)
    (tmp_path / "it's.png").write_bytes(to_png(noise))
    page.locator("#file").set_input_files(tmp_path / "it's.png")
    page.get_by_role("button", name="Copy link or call").click()
    expect(dialog.get_by_role("radio", name="Link")).to_be_disabled()
    done = subprocess.run(["bash", "-c", text_of("curl")], capture_output=True, check=True, cwd=tmp_path)
    assert "readings" in json.loads(done.stdout)
    subprocess.run([sys.executable, "-c", text_of("Python")], check=True, cwd=tmp_path)


def test_picture_to_download_shows_drawing_boxes_answer_and_bars(page: Page, tmp_path: Path) -> None:
    numbers = [0.88 if digit == 4 else 0.01 for digit in range(10)]
    respond_with_lines(page, "4444", probabilities=numbers, is_digit=1)
    page.get_by_role("button", name="Example: 4").click()
    expect(page.locator("#boxes .doubtful")).to_have_text(["4"] * 4)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download picture").click()
    download.value.save_as(tmp_path / "digits.png")
    with Image.open(tmp_path / "digits.png") as picture:
        pixels = np.asarray(picture.convert("RGB"), int)
    assert pixels.shape == (630, 1200, 3)
    is_dark, is_blue = pixels.max(axis=2) < 80, pixels[:, :, 2] - pixels[:, :, 0] > 100
    # The ink of the drawing, and that of the text beside it with the bar of the answer.
    assert is_dark[:, :600].sum() > 5000
    assert is_dark[:200, 640:].sum() > 500
    assert is_blue[200:, 640:].sum() > 4000
    # Boxes and tags of digits that are not sure have the colour of a warning.
    is_brown = (pixels[:, :, 0] > 120) & (pixels[:, :, 2] < 40)
    assert is_brown[:, :600].sum() > 4 * 30 * 20


def test_offline_then_online_keeps_drawing_and_shows_prediction(
    page: Page, expected_errors: list[str]
) -> None:
    expected_errors += ["net::ERR_INTERNET_DISCONNECTED"]
    draw(page, 1)
    expect(page.locator(".reading")).to_have_text("1")
    page.context.set_offline(True)
    page.get_by_role("button", name="Example: 7").click()
    expect(page.locator("#error")).to_contain_text("You are offline. Your drawing is kept")
    assert violations(page) == []
    page.context.set_offline(False)
    expect(page.locator(".reading")).to_have_text("7")
    expect(page.locator("#error")).to_be_empty()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".reading")).to_have_text("1")


def test_answer_while_next_is_due_is_dimmed_and_the_newest_wins(page: Page) -> None:
    show_example(page, "5")
    expect(page.locator(".answer")).to_have_attribute("aria-busy", "false")
    held: list[Route] = []
    page.route("**/v1/read*", lambda route: held.append(route))
    for count, digit in enumerate("83", start=1):
        with page.expect_request("**/v1/read*"):
            page.get_by_role("button", name=f"Example: {digit}").click()
        expect(page.locator(".answer")).to_have_attribute("aria-busy", "true")
        expect(page.locator(".reading")).to_have_text("5")
        expect(page.locator(".reading")).to_have_css("opacity", "0.65")
        assert violations(page) == []
        page.wait_for_function("new Promise(requestAnimationFrame)")
        assert len(held) == count
    for route, digit in zip(reversed(held), "38", strict=True):
        route.fulfill(json=reading_of(digit))
    expect(page.locator(".reading")).to_have_text("3")
    expect(page.locator(".answer")).to_have_attribute("aria-busy", "false")
    expect(page.locator(".reading")).to_have_css("opacity", "1")
