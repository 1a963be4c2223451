"""A service that is slow, offline or busy, and recovery."""

import signal
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect

from tests.e2e.page.pen import STROKES, draw, draw_without_release
from tests.e2e.page.responses import reading_of
from tests.e2e.page.services import CanaryService

pytestmark = pytest.mark.e2e


def test_offline_then_online_keeps_drawing_and_shows_prediction(
    page: Page, console_errors: list[str]
) -> None:
    draw(page, 1)
    expect(page.locator(".reading")).to_have_text("1")
    page.context.set_offline(True)
    page.get_by_role("button", name="Example: 7").click()
    expect(page.locator("#error")).to_contain_text("You are offline. Your drawing is kept")
    page.context.set_offline(False)
    expect(page.locator(".reading")).to_have_text("7")
    expect(page.locator("#error")).to_be_empty()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".reading")).to_have_text("1")
    # Chromium reports each failed request as an error.
    assert console_errors
    assert all("net::ERR_INTERNET_DISCONNECTED" in error for error in console_errors)
    console_errors.clear()


def test_model_server_stopped_then_continued_keeps_drawing_and_shows_prediction(
    open_page: Callable[..., Page], canary_service: CanaryService, console_errors: list[str]
) -> None:
    page = open_page(canary_service.url)
    page.get_by_label("Compare with version").select_option("none")
    canary_service.model_server.send_signal(signal.SIGSTOP)
    try:
        draw(page, 1)
        expect(page.locator("#error")).to_contain_text("Your drawing is kept")
        expect(page.locator(".reading")).to_be_empty()
    finally:
        canary_service.model_server.send_signal(signal.SIGCONT)
    expect(page.locator(".reading")).to_have_text("1")
    expect(page.locator("#error")).to_be_empty()
    # Chromium reports each response of status 503 or 504 as an error.
    assert all("status of 50" in error for error in console_errors)
    console_errors.clear()


def test_answer_while_next_is_due_is_dimmed_and_the_newest_wins(page: Page) -> None:
    page.get_by_role("button", name="Example: 5").click()
    expect(page.locator(".reading")).to_have_text("5")
    expect(page.locator(".answer")).to_have_attribute("aria-busy", "false")
    held: list[Route] = []
    page.route("**/v1/read*", lambda route: held.append(route))
    for count, digit in enumerate("83", start=1):
        with page.expect_request("**/v1/read*"):
            page.get_by_role("button", name=f"Example: {digit}").click()
        expect(page.locator(".answer")).to_have_attribute("aria-busy", "true")
        expect(page.locator(".reading")).to_have_text("5")
        expect(page.locator(".reading")).to_have_css("opacity", "0.4")
        page.wait_for_function("new Promise(requestAnimationFrame)")
        assert len(held) == count
    for route, digit in zip(reversed(held), "38", strict=True):
        route.fulfill(json=reading_of(digit))
    expect(page.locator(".reading")).to_have_text("3")
    expect(page.locator(".answer")).to_have_attribute("aria-busy", "false")
    expect(page.locator(".reading")).to_have_css("opacity", "1")


def test_end_of_stroke_does_not_wait_for_the_answer_before(page: Page) -> None:
    held: list[Route] = []
    page.route("**/v1/read*", lambda route: held.append(route))
    with page.expect_request("**/v1/read*"):
        draw_without_release(page, STROKES[1][0])
    page.mouse.up()
    while len(held) < 2:
        page.wait_for_function("new Promise(requestAnimationFrame)")
    held[-1].fulfill(json=reading_of("1"))
    expect(page.locator(".reading")).to_have_text("1")
