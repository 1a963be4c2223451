"""Feedback on an answer: confirmation, correction, what the service keeps, and the way by keyboard."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import werkzeug
from playwright.sync_api import Page, Route, expect

from tests.e2e.page.accessibility import HAS_FOCUS_OUTLINE, assert_accessible, violations
from tests.e2e.page.conftest import LONG_LABELS
from tests.e2e.page.pen import STROKES, draw_without_release
from tests.e2e.page.responses import reading_of, respond_with_lines, respond_with_refusal
from tests.e2e.page.steps import explain, show_example
from tests.e2e.page.test_tasks import choose, noise_file

pytestmark = pytest.mark.e2e


@pytest.fixture
def page(open_task: Callable[..., Page]) -> Page:
    return open_task("digits")


Given = list[dict[str, Any]]


@pytest.fixture
def given(page: Page) -> Given:
    """Label and boxes of each feedback that reaches the service."""
    return feedback_of(page)


def feedback_of(page: Page) -> Given:
    given: Given = []

    def keep(route: Route) -> None:
        data, kind = route.request.post_data_buffer, route.request.headers["content-type"]
        with werkzeug.Request.from_values(method="POST", data=data, content_type=kind) as sent:
            assert [*sent.files] == ["image"]
            given.append({"label": sent.form["label"], "boxes": sent.form.getlist("box")})
        route.continue_()

    page.route(re.compile("/v1/feedback"), keep)
    return given


def show(page: Page, *lines: str) -> None:
    """Show the answer to a picture of these lines of digits."""
    respond_with_lines(page, *lines)
    if page.locator("#clear").is_enabled():
        page.locator("#clear").click()
    show_example(page, "5", "".join(lines))
    expect(button(page, "Right")).to_be_enabled()


def button(page: Page, name: str) -> Any:
    return page.locator("#feedback").get_by_role("button", name=name)


def status(page: Page) -> Any:
    return page.locator("#feedback").get_by_role("status")


BOXES = ["20,40,16,40", "44,40,16,40"]
"""Boxes of two digits in a line, as `reading_of` has them."""


def test_right_confirms_answer_and_says_what_is_kept(page: Page, given: Given) -> None:
    show(page, "42")
    expect(page.locator("#feedback")).to_contain_text("Picture and label are kept for training.")
    button(page, "Right").click()
    thanks = "Thank you: the picture is kept for training."
    expect(status(page)).to_have_text(thanks)
    assert given == [{"label": "42", "boxes": BOXES}]
    page.locator(".reading label").first.click()
    explain(page)
    expect(status(page)).to_have_text(thanks)


def test_number_is_corrected_to_one_of_any_length_and_to_none(page: Page, given: Given) -> None:
    show(page, "2026", "17")
    button(page, "Wrong: it is …").click()
    field = page.get_by_label("It is")
    expect(field).to_have_value("2026 17")
    expect(field).to_be_focused()
    assert_accessible(page)
    for wrong in ("l7", "4x", "", "–"):
        field.fill(wrong)
        button(page, "Send").click()
        assert field.evaluate("field => field.validity.valid") is False
    for correction in ("2026 11", "202618", "2026 1,71"):
        field.fill(correction)
        button(page, "Send").click()
        button(page, "Change").click()
        button(page, "Wrong: it is …").click()
    button(page, "No number").click()
    expect(status(page)).to_contain_text("Thank you")
    assert [feedback["label"] for feedback in given] == ["2026 11", "202618", "2026 1,71", ""]
    assert {len(feedback["boxes"]) for feedback in given} == {6}


def test_refused_picture_asks_for_its_digit(page: Page, given: Given) -> None:
    respond_with_refusal(page)
    page.get_by_role("button", name="Example: 3").click()
    expect(page.locator(".certainty")).to_have_text("Doesn't look like a digit; if it is one, tell us.")
    button(page, "Wrong: it is …").click()
    page.get_by_label("It is").select_option(label="3")
    button(page, "Send").click()
    expect(status(page)).to_contain_text("Thank you")
    button(page, "Change").click()
    button(page, "Right").click()
    expect(status(page)).to_contain_text("Thank you")
    assert given == [{"label": "3", "boxes": []}, {"label": "", "boxes": []}]


def test_wrong_of_pictures_offers_other_labels_and_none_on_phone(
    open_task: Callable[..., Page], tmp_path: Path
) -> None:
    page = open_task("latin", viewport={"width": 320, "height": 800})
    given = feedback_of(page)
    choose(page, noise_file(tmp_path, 240, 255))
    expect(page.locator(".reading")).to_have_text(LONG_LABELS[2])
    button(page, "Wrong: it is …").click()
    menu = page.get_by_label("It is")
    expect(menu.locator("option")).to_have_text(["…", *LONG_LABELS[:2], "none of them"])
    button(page, "Cancel").scroll_into_view_if_needed()
    expect(button(page, "Cancel")).to_be_in_viewport(ratio=1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    menu.select_option(label=LONG_LABELS[1])
    button(page, "Send").click()
    expect(status(page)).to_contain_text("Thank you")
    assert [feedback["label"] for feedback in given] == [LONG_LABELS[1]]


def test_next_answer_gets_its_own_feedback(page: Page, given: Given) -> None:
    show(page, "7")
    held: list[Route] = []
    page.route("**/v1/feedback*", lambda route: held.append(route))
    with page.expect_request("**/v1/feedback*"):
        button(page, "Right").click()
    show(page, "1")
    with page.expect_response("**/v1/feedback*"):
        held[0].fallback()
    page.unroute("**/v1/feedback*")
    page.evaluate("() => new Promise((resolve) => setTimeout(resolve))")
    expect(status(page)).to_be_empty()
    button(page, "Wrong: it is …").click()
    show(page, "42")
    expect(page.get_by_label("It is")).to_be_hidden()
    button(page, "Right").click()
    expect(status(page)).to_contain_text("Thank you")
    assert [feedback["label"] for feedback in given] == ["7", "42"]


def test_right_confirms_the_answer_that_is_shown(page: Page, given: Given) -> None:
    document = reading_of("17", reader="17", alone="77")
    page.route("**/v1/read*", lambda route: route.fulfill(json=document))
    show_example(page, "5", "77")
    button(page, "Right").click()
    expect(status(page)).to_contain_text("Thank you")
    assert given == [{"label": "77", "boxes": BOXES}]


def test_buttons_while_drawing_are_disabled(page: Page) -> None:
    """The answer in view is that of an unfinished digit, and another one is to come."""
    expect(page.locator("#right")).to_be_disabled()
    respond_with_lines(page, "1")
    with page.expect_response("**/v1/read*"):
        draw_without_release(page, STROKES[4][0])
    expect(page.locator(".reading")).to_have_text("1")
    expect(button(page, "Right")).to_be_disabled()
    page.mouse.up()
    expect(button(page, "Right")).to_be_enabled()


def test_feedback_refused_shows_sentence_and_keeps_buttons(
    page: Page, given: Given, expected_errors: list[str]
) -> None:
    expected_errors += ["503"]
    show(page, "7")
    page.route("**/v1/feedback*", lambda route: route.fulfill(status=503))
    button(page, "Right").click()
    expect(status(page)).to_have_text("The service is unavailable. Try again.")
    expect(page.locator(".reading")).to_have_text("7")
    assert violations(page) == []
    page.unroute("**/v1/feedback*")
    button(page, "Right").click()
    expect(status(page)).to_contain_text("Thank you")


def test_keyboard_alone_confirms_corrects_and_cancels(page: Page, given: Given) -> None:
    show(page, "42")
    page.get_by_role("radio", checked=True).focus()
    right, change, wrong = (button(page, name) for name in ("Right", "Change", "Wrong: it is …"))
    field = page.get_by_label("It is")
    steps = [("Tab", right), ("Enter", change), ("Space", right), ("Tab", wrong), ("Enter", field)]
    for key, focused in [*steps, ("Escape", wrong), ("Enter", field)]:
        page.keyboard.press(key)
        expect(focused).to_be_focused()
        assert page.evaluate(HAS_FOCUS_OUTLINE)
    for key in ("End", "Backspace", "7"):
        page.keyboard.press(key)
    expect(field).to_have_value("47")
    page.keyboard.press("Control+z")
    expect(field).not_to_have_value("47")
    field.fill("41")
    page.keyboard.press("Enter")
    expect(change).to_be_focused()
    # Keys in the field edit its text, not the drawing.
    expect(page.locator("#clear")).to_be_enabled()
    assert given == [{"label": "42", "boxes": BOXES}, {"label": "41", "boxes": BOXES}]
