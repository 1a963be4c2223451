"""Several digits on a picture: text, boxes and choice; and pictures that are refused."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.page.pen import STROKES, draw, draw_without_release, to_viewport, write
from tests.e2e.page.responses import respond_with_lines, respond_with_problem
from tests.e2e.page.test_explanation import COUNT_COLOURS
from tests.readme import ROOT

pytestmark = pytest.mark.e2e

NUMBER = ROOT / "docs" / "number.jpg"
"""Photograph of 2026 above 17."""

# Columns of the heat map, as fractions of its width, between which it has colour.
COLOURED_COLUMNS = """canvas => {
  const { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  const isColoured = (pixel) =>
    data[4 * pixel + 3] > 128 && Math.abs(data[4 * pixel + 2] - data[4 * pixel]) > 60;
  const columns = Array.from({ length: width * height }, (_, pixel) => pixel)
    .filter(isColoured)
    .map((pixel) => (pixel % width) / width);
  return [Math.min(...columns), Math.max(...columns)];
}"""


def test_write_number_shows_text_and_box_of_each_digit(page: Page) -> None:
    write(page, "17")
    expect(page.locator("#reading")).to_have_text("17", use_inner_text=True)
    expect(page.locator("#boxes div")).to_have_text(["1", "7"])
    paper = page.locator("#paper").bounding_box()
    assert paper
    # One evaluation: a later answer to the same drawing replaces the boxes.
    boxes = page.locator("#boxes div").evaluate_all("all => all.map(box => box.getBoundingClientRect())")
    for place, (digit, box) in enumerate(zip((1, 7), boxes, strict=True)):
        columns = [0.4 * place + x / 2 for stroke in STROKES[digit] for x, _ in stroke]
        # The pen is 0.06 wide; a box keeps a small distance from the ink.
        assert (box["x"] - paper["x"]) / paper["width"] == pytest.approx(min(columns) - 0.045, abs=0.02)
        assert box["width"] / paper["width"] == pytest.approx(max(columns) - min(columns) + 0.09, abs=0.04)


def test_image_of_number_sends_one_request(page: Page) -> None:
    paths: list[str] = []
    page.on("request", lambda request: paths.append(request.url.partition("/v1/")[2]))
    page.get_by_label("Image").set_input_files(NUMBER)
    expect(page.locator("#reading label")).to_have_count(6)
    page.get_by_role("radio", name="1, digit 5 of 6").focus()
    page.keyboard.press("Space")
    expect(page.locator("#bars .answer span")).to_have_text("1")
    assert list(filter(None, paths)) == ["read?include=image"]


def test_image_of_two_lines_shows_lines_and_boxes_on_picture(page: Page) -> None:
    page.get_by_label("Image").set_input_files(NUMBER)
    expect(page.locator("#reading p")).to_have_text(["2026", "17"])
    expect(page.locator("#boxes div")).to_have_text(list("202617"))
    expect(page.locator("#boxes .chosen")).to_have_text("2")
    for box in page.locator("#boxes div").all():
        expect(box).to_be_in_viewport(ratio=1)


def test_one_digit_has_no_box_and_no_choice(page: Page) -> None:
    write(page, "17")
    expect(page.locator("#boxes div")).to_have_count(2)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#reading")).to_have_text("1")
    expect(page.locator("#boxes div")).to_have_count(0)
    expect(page.get_by_role("radio")).to_have_count(0)


def test_choose_by_keyboard_moves_bars_network_input_and_heat_map(page: Page) -> None:
    write(page, "71")
    page.get_by_role("button", name="Why?").click()
    # The digit that was drawn last is chosen at first.
    expect(page.get_by_role("radio", name="1, digit 2 of 2")).to_be_checked()
    expect(page.locator("main[data-explained=strokes]")).to_be_visible()
    expect(page.locator("#scale-text")).to_contain_text("the odds of a 1")
    network_input = page.locator("#network-input").get_attribute("src")
    assert network_input
    first, last = page.locator("#heatmap").evaluate(COLOURED_COLUMNS)
    assert 0.45 < first < last
    page.get_by_role("radio", checked=True).focus()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("radio", name="7, digit 1 of 2")).to_be_checked()
    expect(page.get_by_role("radio", name="7, digit 1 of 2")).to_be_focused()
    expect(page.locator("#bars .answer span")).to_have_text("7")
    expect(page.locator("#boxes .chosen")).to_have_text("7")
    expect(page.locator("#network-input")).not_to_have_attribute("src", network_input)
    expect(page.locator("#scale-text")).to_contain_text("the odds of a 7")
    first, last = page.locator("#heatmap").evaluate(COLOURED_COLUMNS)
    assert first < last < 0.45


def test_choose_on_image_explains_chosen_digit(page: Page) -> None:
    page.get_by_label("Image").set_input_files(NUMBER)
    page.get_by_role("button", name="Why?").click()
    expect(page.locator("main[data-explained=image]")).to_be_visible()
    expect(page.locator("#boxes")).to_be_hidden()
    page.locator("#reading label").nth(3).click()
    expect(page.locator("#scale-text")).to_contain_text("the odds of a 6")
    assert page.locator("#heatmap").evaluate(COUNT_COLOURS)["blue"] > 1000


def test_tap_in_box_chooses_digit_without_dot(page: Page) -> None:
    write(page, "17")
    expect(page.locator("#boxes .chosen")).to_have_text("7")
    [(x, y)] = to_viewport(page, [(0.25, 0.5)])
    page.mouse.click(x, y)
    expect(page.locator("#boxes .chosen")).to_have_text("1")
    expect(page.locator("#bars .answer span")).to_have_text("1")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#reading")).to_have_text("1")


def test_stroke_from_box_draws(page: Page) -> None:
    """A long dash through the 1 begins in its box."""
    write(page, "17")
    expect(page.locator("#boxes div")).to_have_count(2)
    with page.expect_request("**/v1/read*"):
        draw_without_release(page, [(0.25, 0.4), (0.25, 0.5)])
        page.mouse.up()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#reading")).to_have_text("17")


def test_clear_removes_text_and_boxes(page: Page) -> None:
    write(page, "17")
    expect(page.locator("#boxes div")).to_have_count(2)
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#boxes div")).to_have_count(0)
    expect(page.locator("#reading")).to_be_empty()


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("no_digit", "That doesn't look like a digit."),
        ("too_many_digits", "Those are more digits than the network reads at once."),
    ],
)
def test_refused_drawing_shows_sentence_after_stroke(page: Page, code: str, sentence: str) -> None:
    respond_with_problem(page, code, "The service's own words.")
    with page.expect_response("**/v1/read*"):
        draw_without_release(page, STROKES[1][0])
    expect(page.get_by_text(sentence)).to_have_count(0)
    page.mouse.up()
    expect(page.locator("#certainty")).to_have_text(sentence)
    expect(page.get_by_role("status").filter(has_text=sentence)).to_have_count(1)
    expect(page.locator("#error")).to_be_empty()
    expect(page.get_by_role("button", name="Why?")).to_be_disabled()
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#certainty")).to_have_text("The answer appears here while you draw.")


@pytest.mark.parametrize("lines", [("17",), ("2026", "17"), ("0123456789",) * 3])
def test_layout_from_one_digit_to_several_keeps_its_place(
    open_page: Callable[..., Page], lines: tuple[str, ...]
) -> None:
    for width, height in ((320, 640), (768, 1024), (1280, 800)):
        page = open_page(viewport={"width": width, "height": height})
        draw(page, 1)
        expect(page.locator("#reading")).to_have_text("1")
        before = page.locator("#bars").bounding_box()
        doubtful = [0.0, 0.2, 0.0, 0.45, 0.0, 0.0, 0.0, 0.0, 0.35, 0.0]
        respond_with_lines(page, *lines, probabilities=doubtful)
        page.get_by_role("button", name="Clear").click()
        draw(page, 1)
        expect(page.locator("#reading label")).to_have_count(len("".join(lines)))
        assert page.locator("#bars").bounding_box() == before
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_screen_reader_after_writing_number_hears_it_once(page: Page) -> None:
    write(page, "17")
    expect(page.get_by_role("status").filter(has_text="These are 2 digits: 17.")).to_have_count(1)
    page.get_by_role("radio", checked=True).focus()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("status").filter(has_text="This is a 1")).to_have_count(1)
