"""Answers to a picture: digits, boxes, certainty, bars and choice; refusals; and explanations by "Why?"."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.page.pen import STROKES, draw, draw_without_release, to_viewport, write
from tests.e2e.page.responses import DOUBTFUL, respond_with_lines, respond_with_refusal
from tests.e2e.page.steps import explain, show_example

pytestmark = pytest.mark.e2e

REFUSED = "Doesn't look like a digit"

# Number of blue pixels of the heat map; first and last column of clear colour, as fractions of its width.
COLOURS = """canvas => {
  const { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  const pixels = Array.from({ length: width * height }, (_, pixel) => pixel);
  const isBluer = (pixel, by) => data[4 * pixel + 3] > 128 && data[4 * pixel + 2] - data[4 * pixel] > by;
  const isRedder = (pixel, by) => data[4 * pixel + 3] > 128 && data[4 * pixel] - data[4 * pixel + 2] > by;
  const columns = pixels.filter((pixel) => isBluer(pixel, 60) || isRedder(pixel, 60))
    .map((pixel) => (pixel % width) / width);
  const blue = pixels.filter((pixel) => isBluer(pixel, 40)).length;
  return [blue, Math.min(...columns), Math.max(...columns)];
}"""

# Tags that cover another digit's box, or another tag.
COVERING_TAGS = """boxes => {
  const tags = boxes.flatMap((box) => [...box.querySelectorAll("b")]);
  const covers = (one, other) => {
    const [a, b] = [one, other].map((element) => element.getBoundingClientRect());
    return a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
  };
  return tags.filter((tag) => [...boxes, ...tags].some(
    (other) => other !== tag && other !== tag.parentElement && covers(tag, other))).length;
}"""


def probabilities_of(**probabilities: float) -> list[float]:
    """Return the probability of each digit, named by a letter and the digit."""
    return [probabilities.get(f"p{digit}", 0.0) for digit in range(10)]


def answers_of(count: int = 1, none: float = 0, **probabilities: float) -> list[dict[str, Any]]:
    """Return equal answers in the form of api.js, of the same probabilities and this share of no digit."""
    numbers = probabilities_of(**probabilities)
    shares = [*(number * (1 - none) for number in numbers), none]
    return [{"index": numbers.index(max(numbers)), "shares": shares, "labels": list("0123456789")}] * count


def test_messages_name_certainty_of_the_least_sure_digit_factor_of_odds_and_difference(page: Page) -> None:
    certainties = [
        (answers_of(p5=0.97, p3=0.03), "The network is sure."),
        (answers_of(p5=0.7, p3=0.2, p8=0.1), "It could also be a 3."),
        (answers_of(p3=0.45, p8=0.4, p5=0.15), "Hard to tell: it could also be an 8."),
        (answers_of(2, p1=0.8, p7=0.2), "Digit 1 could also be a 7."),
        (answers_of(2, 0.45, p1=0.99, p7=0.01), "Hard to tell: digit 1 could also be no digit."),
    ]
    scales = [
        (math.log(41.7), "the odds of an 8 change by a factor of 42."),
        (math.log(1234), "the odds of an 8 change by a factor of 1,200."),
        (20, "the odds of an 8 change by a factor of more than a million."),
        (0, "No single part changes the odds of an 8."),
    ]
    unsure = {"lines": [], "refusal": "unsure"}
    sentences: list[tuple[str, list[Any], str]] = [
        *(("describeCertainty", [answers], text) for answers, text in certainties),
        *(("describeScale", ["8", peak], text) for peak, text in scales),
        # Unsure is not called no digit.
        ("describeDifference", [unsure, {"lines": [{"text": "3"}]}, "no digit"], "nothing surely or 3?"),
    ]
    call = "async ([name, values]) => (await import('/static/messages.js'))[name](...values)"
    for name, values, text in sentences:
        assert page.evaluate(call, [name, values]).endswith(text)


def test_bars_of_doubtful_answer_mute_zeros_and_show_no_100_percent(page: Page) -> None:
    numbers = probabilities_of(p4=0.82, p9=0.1797, p7=0.0003)
    respond_with_lines(page, "4", probabilities=numbers, is_digit=1)
    page.get_by_role("button", name="Example: 4").click()
    expect(page.locator(".bars .best b")).to_have_text("82%")
    expect(page.locator(".bars li:not(.zero) span")).to_have_text(["4", "9"])
    widths = page.locator(".bars b").evaluate_all("labels => labels.map((label) => label.offsetWidth)")
    assert [digit for digit, width in enumerate(widths) if width > 1] == [4, 9]
    respond_with_lines(page, "4", probabilities=probabilities_of(p4=1), is_digit=1)
    page.get_by_role("button", name="Example: 4").click()
    expect(page.locator(".bars .best b")).to_have_text("99%")


# Strokes, the width of the pen and the digit: plain and thin 1, which may be any stroke, small 0, ring.
PLAIN = [
    ([(0.5, 0.2), (0.5, 0.4), (0.5, 0.6), (0.5, 0.8)], 6, "1"),
    ([(0.5, 0.2), (0.5, 0.4), (0.5, 0.6), (0.5, 0.8)], 2, "1"),
    ([(0.5 + 0.06 * math.sin(angle / 5), 0.5 - 0.09 * math.cos(angle / 5)) for angle in range(33)], 6, "0"),
    ([(0.5 + 0.3 * math.sin(angle / 5), 0.5 - 0.3 * math.cos(angle / 5)) for angle in range(33)], 6, "0"),
]


def test_plain_strokes_are_read_and_sure_only_as_zeros(page: Page) -> None:
    for stroke, width, digit in PLAIN:
        page.locator("#pen input").fill(str(width))
        draw_without_release(page, stroke)
        page.mouse.up()
        expect(page.locator(".reading")).to_have_text(digit)
        sentence = "It could also be no digit." if digit == "1" else "The network is sure."
        expect(page.locator(".certainty")).to_have_text(sentence)
        expect(page.locator(".bars .best span")).to_have_text(digit)
        others = page.locator(".bars li:not(.zero):not(.best) span")
        assert {*others.all_inner_texts()} <= {"none"}
        page.get_by_role("button", name="Clear").click()


@pytest.mark.parametrize(("is_digit", "none"), [(0.95, "5%"), (0.8, "20%"), (0.55, "45%"), (0.36, "50%")])
def test_answer_in_doubt_shares_its_bar_with_none_which_is_never_longer(
    page: Page, is_digit: float, none: str
) -> None:
    respond_with_lines(page, "0", probabilities=probabilities_of(p0=1), is_digit=is_digit)
    page.get_by_role("button", name="Example: 0").click()
    expect(page.locator(".bars li:last-child b")).to_have_text(none)
    expect(page.locator(".bars .best span")).to_have_text("0")
    sentences = {0.95: "The network is sure.", 0.8: "It could also be no digit."}
    sentence = sentences.get(is_digit, "Hard to tell: it could also be no digit.")
    expect(page.locator(".certainty")).to_have_text(sentence)


def test_write_number_shows_text_and_box_of_each_digit(page: Page) -> None:
    write(page, "71")
    expect(page.locator(".reading")).to_have_text("71", use_inner_text=True)
    expect(page.get_by_role("status").filter(has_text="These are 2 digits: 71.")).to_have_count(1)
    expect(page.locator("#boxes div")).to_have_text(["7", "1"])
    paper = page.locator("#paper").bounding_box()
    assert paper
    # One evaluation: a later answer to the same drawing replaces the boxes.
    boxes = page.locator("#boxes div").evaluate_all("all => all.map(box => box.getBoundingClientRect())")
    for place, (digit, box) in enumerate(zip((7, 1), boxes, strict=True)):
        columns = [0.4 * place + x / 2 for stroke in STROKES[digit] for x, _ in stroke]
        start = (box["x"] - paper["x"]) / paper["width"]
        assert start < (min(columns) + max(columns)) / 2 < start + box["width"] / paper["width"]
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".reading")).to_have_text("7")
    # One digit has its box, too, for it may be a part of the ink; its label stands beside the drawing.
    expect(page.locator("#boxes div")).to_have_text([""])
    expect(page.locator(".reading [type=radio]")).to_have_count(0)


# For each box, the number of dark pixels just outside of it.
INK_AROUND = """boxes => {
  const canvas = document.querySelector("#drawing");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return boxes.map(({ style }) => {
    const shares = [style.left, style.top, style.width, style.height].map((each) => parseFloat(each) / 100);
    const [left, top, width, height] = shares;
    let ink = 0;
    for (let x = Math.round(left * canvas.width); x < (left + width) * canvas.width; x++) {
      for (const y of [top - 0.01, top + height + 0.01]) {
        ink += data[4 * (Math.round(y * canvas.height) * canvas.width + x) + 3] > 128;
      }
    }
    return ink;
  });
}"""


def test_boxes_hold_the_ink_of_a_thick_pen_and_every_digit_of_two_rows_has_its_tag(
    open_page: Callable[..., Page],
) -> None:
    page = open_page(viewport={"width": 1280, "height": 800})
    for width, rows in (("10", ["372"]), ("6", ["381", "753"])):
        page.get_by_label("Pen width").fill(width)
        for row, text in enumerate(rows):
            for place, digit in enumerate(text):
                for stroke in STROKES[int(digit)]:
                    left, top = 0.31 * place - 0.06, 0.47 * row - 0.02
                    draw_without_release(page, [(left + x * 0.52, top + y * 0.52) for x, y in stroke])
                    page.mouse.up()
        expect(page.locator(".reading")).to_have_text("".join(rows))
        expect(page.locator("#boxes b")).to_have_text([*"".join(rows)])
        assert page.locator("#boxes div").evaluate_all(INK_AROUND) == [0] * len("".join(rows))
        assert page.locator("#boxes div").evaluate_all(COVERING_TAGS) == 0
        page.get_by_role("button", name="Clear").click()


def test_long_number_written_with_the_default_pen_is_read(page: Page) -> None:
    page.locator("#drawing").focus()
    for place, digit in enumerate((2, 0, 1, 7)):
        for stroke in STROKES[digit]:
            draw_without_release(page, [(x / 2.6 + 0.24 * place - 0.06, y / 2.6 + 0.3) for x, y in stroke])
            page.mouse.up()
    expect(page.locator(".reading")).to_have_text("2017")


def test_photograph_of_number_takes_one_request_and_shows_lines_boxes_and_tags(page: Page) -> None:
    paths: list[str] = []
    page.on("request", lambda request: paths.append(request.url.partition("/v1/")[2]))
    page.get_by_role("button", name="Example: photo", exact=True).click()
    expect(page.locator(".reading p")).to_have_text(["2026", "17"])
    expect(page.locator("#boxes .chosen")).to_have_text("2")
    for box in page.locator("#boxes div").all():
        expect(box).to_be_in_viewport(ratio=1)
    assert page.locator("#boxes div").evaluate_all(COVERING_TAGS) == 0
    assert list(filter(None, paths)) == ["read?include=image"]
    explain(page, on="image")
    expect(page.locator("#boxes")).to_be_hidden()
    page.locator(".reading label").nth(3).click()
    expect(page.locator("#scale-text")).to_contain_text("the odds of a 6")
    assert page.locator("#heatmap").evaluate(COLOURS)[0] > 1000


@pytest.mark.parametrize(("width", "height"), [(320, 640), (1280, 800)])
def test_tags_cover_no_digit_and_all_lines_are_in_view(
    open_page: Callable[..., Page], width: int, height: int
) -> None:
    page = open_page(viewport={"width": width, "height": height})
    show_example(page, "1")
    page.evaluate("scrollTo(0, 0)")
    bars = [page.locator(".bars").bounding_box()]
    for lines in (("2026", "17"), ("0123456789",) * 3):
        respond_with_lines(page, *lines, probabilities=DOUBTFUL)
        page.get_by_role("button", name="Example: 1").click()
        expect(page.locator(".reading")).to_have_text("".join(lines))
        page.evaluate("scrollTo(0, 0)")
        bars.append(page.locator(".bars").bounding_box())
        assert page.locator("#boxes div").evaluate_all(COVERING_TAGS) == 0
        for line in page.locator(".reading p").all():
            line.scroll_into_view_if_needed()
            expect(line).to_be_in_viewport(ratio=1)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert bars[0] == bars[1]


def test_choose_by_keyboard_moves_bars_network_input_and_heat_map(page: Page) -> None:
    write(page, "71")
    page.get_by_role("button", name="Why?").click()
    # The digit that was drawn last is chosen at first.
    expect(page.get_by_role("radio", name="1, digit 2 of 2")).to_be_checked()
    expect(page.locator("main[data-explained=strokes]")).to_be_visible()
    expect(page.locator("#scale-text")).to_contain_text("the odds of a 1")
    certainty = page.locator(".certainty").inner_text()
    network_input = page.locator(".answer img").get_attribute("src")
    assert network_input
    _, first, last = page.locator("#heatmap").evaluate(COLOURS)
    assert 0.45 < first < last
    page.get_by_role("radio", checked=True).focus()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("radio", name="7, digit 1 of 2")).to_be_checked()
    expect(page.get_by_role("radio", name="7, digit 1 of 2")).to_be_focused()
    expect(page.locator(".bars .best span")).to_have_text("7")
    expect(page.locator("#boxes .chosen")).to_have_text("7")
    expect(page.locator(".answer img")).not_to_have_attribute("src", network_input)
    expect(page.locator("#scale-text")).to_contain_text("the odds of a 7")
    expect(page.locator(".certainty")).to_have_text(certainty)
    expect(page.get_by_role("status").filter(has_text="This is a 7")).to_have_count(1)
    _, first, last = page.locator("#heatmap").evaluate(COLOURS)
    assert first < last < 0.45


def test_tap_in_box_chooses_digit_and_stroke_from_it_draws(page: Page) -> None:
    write(page, "17")
    expect(page.locator("#boxes .chosen")).to_have_text("7")
    # The answer to the last stroke chooses its digit anew.
    page.wait_for_load_state("networkidle")
    [(x, y)] = to_viewport(page, [(0.25, 0.5)])
    page.mouse.click(x, y)
    expect(page.locator("#boxes .chosen")).to_have_text("1")
    expect(page.locator(".bars .best span")).to_have_text("1")
    with page.expect_request("**/v1/read*"):
        draw_without_release(page, [(0.25, 0.4), (0.25, 0.5)])
        page.mouse.up()
    for text in ("17", "1"):
        page.get_by_role("button", name="Undo").click()
        expect(page.locator(".reading")).to_have_text(text)


def test_refused_drawing_shows_sentence_and_numbers_after_stroke(page: Page) -> None:
    respond_with_refusal(page)
    with page.expect_response("**/v1/read*"):
        draw_without_release(page, STROKES[1][0])
    expect(page.get_by_text(REFUSED)).to_have_count(0)
    page.mouse.up()
    expect(page.locator(".certainty")).to_have_text(f"{REFUSED}.")
    expect(page.get_by_role("status").filter(has_text=REFUSED)).to_have_count(1)
    expect(page.locator(".bars li:not(.zero) span")).to_have_text(["1", "3", "8", "none"])
    expect(page.locator(".bars .best")).to_have_text("none90%")
    expect(page.locator(".answer img")).to_be_visible()
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".certainty")).to_have_text("The answer appears here while you draw.")
    expect(page.locator(".answer img")).to_be_hidden()


def test_why_on_drawing_paints_heat_map_with_scale_and_hides_it_during_a_stroke(page: Page) -> None:
    why = page.get_by_role("button", name="Why?")
    expect(page.locator("#why")).to_be_disabled()
    draw(page, 4)
    expect(page.locator(".reading")).to_have_text("4")
    with page.expect_request(
        lambda request: request.headers.get("content-type") == "application/json"
    ) as request:
        why.click()
    assert 20 < len(json.loads(request.value.post_data or "")["instances"]) <= 256
    expect(page.locator("main[data-explained=strokes]")).to_be_visible()
    for text in ("Red: against", "Blue: for", "without that part, the odds of a 4 change by a factor of"):
        expect(page.get_by_text(text)).to_be_visible()
    assert page.locator("#heatmap").evaluate(COLOURS)[0] > 1000
    draw_without_release(page, [(0.2, 0.2), (0.3, 0.2)])
    expect(page.locator("main[data-explained]")).to_have_count(0)
    page.mouse.up()
    expect(page.locator("main[data-explained]")).to_be_visible()
    why.click()
    expect(page.locator("main[data-explained]")).to_have_count(0)
    expect(page.locator("#scale")).to_be_hidden()
