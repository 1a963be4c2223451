"""Feedback on an answer: confirmation, correction, what the service keeps, and the way by keyboard."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from digit_client import DIGITS
from tests.e2e.page.pen import STROKES, draw_without_release
from tests.e2e.page.responses import respond_with_lines, respond_with_refusal
from tests.e2e.page.stub import StubGateway
from tests.e2e.page.test_accessibility import HAS_FOCUS_OUTLINE, violations
from tests.e2e.page.test_tasks import FLOWERS, choose, picture_file

pytestmark = pytest.mark.e2e

OpenTask = Callable[..., Page]


@pytest.fixture
def gateway() -> StubGateway:
    """Gateway that takes feedback on digits."""
    return StubGateway(DIGITS, takes_feedback=True)


def write_number(page: Page, *lines: str) -> None:
    """Show the answer to a picture of these lines of digits."""
    respond_with_lines(page, *lines)
    if page.locator("#clear").is_enabled():
        page.locator("#clear").click()
    page.get_by_role("button", name="Example: 5").click()
    expect(page.locator(".reading")).to_have_text("".join(lines))
    expect(button(page, "Right")).to_be_enabled()


def open_number(open_task: OpenTask, gateway: StubGateway, *lines: str, **options: Any) -> Page:
    """Open the page and show the answer to a picture of these lines of digits."""
    page = open_task(gateway, **options)
    page.locator("body[data-ready]").wait_for()
    write_number(page, *lines)
    return page


def button(page: Page, name: str) -> Any:
    return page.locator("#feedback").get_by_role("button", name=name)


def status(page: Page) -> Any:
    return page.locator("#feedback").get_by_role("status")


def test_service_without_feedback_has_no_buttons(open_task: OpenTask, tmp_path: Path) -> None:
    page = open_task(StubGateway(FLOWERS))
    choose(page, picture_file(tmp_path))
    expect(page.locator(".reading")).to_have_text("tulip")
    expect(page.locator("#feedback")).to_be_hidden()


@pytest.mark.parametrize(
    ("inputs", "original", "sentence"),
    [
        (1, False, "with what the network saw, but not the picture."),
        (1, True, "with what the network saw and the picture as sent."),
        (3, False, "with what the network saw of 3 digits, but not the picture."),
    ],
    ids=["input", "original", "digits"],
)
def test_right_confirms_answer_and_says_what_is_kept(
    open_task: OpenTask, gateway: StubGateway, inputs: int, original: bool, sentence: str
) -> None:
    gateway.kept = {"inputs": inputs, "original": original}
    page = open_number(open_task, gateway, "7")
    expect(page.locator("#feedback")).to_contain_text("Feedback is kept for training.")
    button(page, "Right").click()
    expect(status(page)).to_have_text(f"Thank you: kept for training, {sentence}")
    assert gateway.feedback == [{"request_id": "reading-of-7", "is": "right"}]


@pytest.mark.parametrize(
    ("lines", "text", "corrections"),
    [(("42",), "42", ["421", "4", "43 1"]), (("2026", "17"), "2026 17", ["2026 11"]), (("7",), "7", ["17"])],
    ids=str,
)
def test_number_is_corrected_to_any_length_and_to_none(
    open_task: OpenTask, gateway: StubGateway, lines: tuple[str, ...], text: str, corrections: list[str]
) -> None:
    page = open_number(open_task, gateway, *lines)
    button(page, "Wrong: it is …").click()
    field = page.get_by_label("It is")
    expect(field).to_have_value(text)
    expect(field).to_be_focused()
    for wrong in ("l7", "4,2", ""):
        field.fill(wrong)
        button(page, "Send").click()
        assert field.evaluate("field => field.validity.valid") is False
    for correction in corrections:
        field.fill(correction)
        button(page, "Send").click()
        button(page, "Change").click()
        button(page, "Wrong: it is …").click()
    button(page, "No number").click()
    expect(status(page)).to_contain_text("Thank you")
    request_id = f"reading-of-{'-'.join(lines)}"
    assert gateway.feedback == [{"request_id": request_id, "label": label} for label in (*corrections, "")]


def test_refused_picture_asks_for_its_digit(open_task: OpenTask, gateway: StubGateway) -> None:
    page = open_task(gateway)
    page.locator("body[data-ready]").wait_for()
    respond_with_refusal(page)
    page.get_by_role("button", name="Example: 3").click()
    expect(page.locator(".certainty")).to_have_text("Doesn't look like a digit; if it is one, tell us.")
    button(page, "Wrong: it is …").click()
    page.get_by_label("It is").fill("3")
    button(page, "Send").click()
    button(page, "Change").click()
    button(page, "Right").click()
    expect(status(page)).to_contain_text("Thank you")
    refused = {"request_id": "reading-of-"}
    assert gateway.feedback == [refused | {"label": "3"}, refused | {"is": "right"}]


def test_wrong_of_pictures_offers_other_labels_and_none(open_task: OpenTask, tmp_path: Path) -> None:
    gateway = StubGateway(FLOWERS, takes_feedback=True)
    page = open_task(gateway)
    choose(page, picture_file(tmp_path))
    expect(page.locator(".reading")).to_have_text("tulip")
    button(page, "Wrong: it is …").click()
    expect(page.get_by_label("It is").locator("option")).to_have_text(["…", "daisy", "rose", "none of them"])
    page.get_by_label("It is").select_option(label="rose")
    button(page, "Send").click()
    expect(status(page)).to_contain_text("Thank you")
    assert [feedback["label"] for feedback in gateway.feedback] == ["rose"]
    assert gateway.feedback[0]["request_id"].startswith("request-")


def test_next_answer_gets_its_own_feedback(open_task: OpenTask, gateway: StubGateway) -> None:
    page = open_number(open_task, gateway, "7")
    button(page, "Right").click()
    expect(button(page, "Change")).to_be_visible()
    write_number(page, "42")
    expect(status(page)).to_be_empty()
    button(page, "Wrong: it is …").click()
    write_number(page, "1")
    expect(page.get_by_label("It is")).to_be_hidden()
    button(page, "Right").click()
    expect(status(page)).to_contain_text("Thank you")
    assert [feedback["request_id"] for feedback in gateway.feedback] == ["reading-of-7", "reading-of-1"]


def test_buttons_while_drawing_are_disabled(open_task: OpenTask, gateway: StubGateway) -> None:
    """The answer in view is that of an unfinished digit, and another one is to come."""
    page = open_task(gateway)
    page.locator("body[data-ready]").wait_for()
    expect(button(page, "Right")).to_be_disabled()
    respond_with_lines(page, "1")
    with page.expect_response("**/v1/read*"):
        draw_without_release(page, STROKES[4][0])
    expect(page.locator(".reading")).to_have_text("1")
    expect(button(page, "Right")).to_be_disabled()
    page.mouse.up()
    expect(button(page, "Right")).to_be_enabled()
    button(page, "Right").click()
    expect(status(page)).to_contain_text("Thank you")
    respond_with_lines(page, "4")
    draw_without_release(page, STROKES[4][1])
    expect(button(page, "Right")).to_be_disabled()
    page.mouse.up()
    expect(button(page, "Right")).to_be_enabled()


def test_choice_and_explanation_keep_thanks(open_task: OpenTask, gateway: StubGateway) -> None:
    page = open_number(open_task, gateway, "42")
    button(page, "Right").click()
    expect(status(page)).to_contain_text("Thank you")
    page.locator(".reading label").first.click()
    page.get_by_role("button", name="Why?").click()
    expect(page.locator("main[data-explained]")).to_be_visible()
    expect(status(page)).to_contain_text("Thank you")


def test_feedback_that_ends_after_next_answer_leaves_its_buttons(
    open_task: OpenTask, gateway: StubGateway
) -> None:
    page = open_number(open_task, gateway, "7")
    held: list[Route] = []
    page.route("**/v1/feedback", lambda route: held.append(route))
    with page.expect_request("**/v1/feedback"):
        button(page, "Right").click()
    write_number(page, "1")
    with page.expect_response("**/v1/feedback"):
        held[0].fallback()
    page.evaluate("() => new Promise((resolve) => setTimeout(resolve))")
    expect(button(page, "Right")).to_be_visible()
    expect(status(page)).to_be_empty()


@pytest.mark.parametrize(
    ("code", "number", "sentence"),
    [
        ("feedback_unknown", 404, "The answer is no longer kept."),
        ("feedback_unavailable", 503, "The service is unavailable. Try again."),
    ],
)
def test_feedback_refused_shows_sentence_and_keeps_buttons(
    open_task: OpenTask,
    gateway: StubGateway,
    console_errors: list[str],
    code: str,
    number: int,
    sentence: str,
) -> None:
    page = open_number(open_task, gateway, "7")
    problem = {"status": number, "code": code, "detail": "The answer is no longer kept."}
    page.route("**/v1/feedback", lambda route: route.fulfill(status=number, json=problem))
    button(page, "Right").click()
    expect(status(page)).to_have_text(sentence)
    expect(page.locator(".reading")).to_have_text("7")
    assert violations(page) == []
    page.unroute("**/v1/feedback")
    button(page, "Right").click()
    expect(status(page)).to_contain_text("Thank you")
    assert all(str(number) in error for error in console_errors)
    console_errors.clear()


def test_keyboard_alone_confirms_corrects_and_cancels(open_task: OpenTask, gateway: StubGateway) -> None:
    page = open_number(open_task, gateway, "42")
    outlines = []

    def press(*keys: str) -> None:
        for key in keys:
            page.keyboard.press(key)
        outlines.append(page.evaluate(HAS_FOCUS_OUTLINE))

    page.get_by_role("radio", checked=True).focus()
    press("Tab")
    expect(button(page, "Right")).to_be_focused()
    press("Enter")
    expect(button(page, "Change")).to_be_focused()
    press("Space")
    expect(button(page, "Right")).to_be_focused()
    press("Tab")
    expect(button(page, "Wrong: it is …")).to_be_focused()
    press("Enter")
    expect(page.get_by_label("It is")).to_be_focused()
    press("Escape")
    expect(button(page, "Wrong: it is …")).to_be_focused()
    press("Enter", "End", "Backspace", "7")
    expect(page.get_by_label("It is")).to_have_value("47")
    press("Control+z")
    expect(page.get_by_label("It is")).not_to_have_value("47")
    page.get_by_label("It is").fill("41")
    press("Enter")
    expect(button(page, "Change")).to_be_focused()
    assert all(outlines)
    # Keys in the field edit its text, not the drawing.
    expect(page.locator("#clear")).to_be_enabled()
    answer = {"request_id": "reading-of-42"}
    assert gateway.feedback == [answer | {"is": "right"}, answer | {"label": "41"}]


@pytest.mark.parametrize("lines", [("7",), ("2026", "17")], ids=str)
@pytest.mark.parametrize(
    ("width", "scheme"), [(320, "light"), (320, "dark"), (390, "light"), (768, "light"), (1440, "dark")]
)
def test_each_state_has_no_violations_no_overflow_and_moves_nothing(
    open_task: OpenTask, gateway: StubGateway, width: int, scheme: str, lines: tuple[str, ...]
) -> None:
    page = open_number(
        open_task,
        gateway,
        *lines,
        viewport={"width": width, "height": 800},
        color_scheme=scheme,
        reduced_motion="reduce",
        has_touch=width < 400,
    )
    parts = ("#drawing", ".answer", "#explanation")

    def check() -> list[Any]:
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for control in page.locator("#feedback").locator("button, select, input").all():
            if control.is_visible():
                expect(control).to_be_in_viewport(ratio=1)
        return [page.locator(part).bounding_box() for part in parts]

    page.locator("#feedback").scroll_into_view_if_needed()
    before = check()
    button(page, "Wrong: it is …").click()
    assert check() == before
    button(page, "Cancel").click()
    button(page, "Right").click()
    expect(button(page, "Change")).to_be_visible()
    assert check() == before


def test_menu_of_long_labels_fits_on_phone(open_task: OpenTask, tmp_path: Path) -> None:
    labels = tuple(f"{letter} flower with a rather long name, in Latin" for letter in "ABC")
    gateway = StubGateway(replace(FLOWERS, labels=labels), takes_feedback=True)
    page = open_task(gateway, viewport={"width": 320, "height": 800})
    choose(page, picture_file(tmp_path))
    expect(page.locator(".reading")).to_have_text(labels[2])
    button(page, "Wrong: it is …").click()
    expect(button(page, "Cancel")).to_be_in_viewport(ratio=1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
