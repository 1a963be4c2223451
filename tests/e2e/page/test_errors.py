"""Errors of the service: offline, busy, and recovery from both."""

import signal
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.page.pen import draw
from tests.e2e.page.services import CanaryService

pytestmark = pytest.mark.e2e


def test_offline_then_online_keeps_drawing_and_shows_prediction(
    page: Page, console_errors: list[str]
) -> None:
    draw(page, 1)
    expect(page.locator("#reading")).to_have_text("1")
    page.context.set_offline(True)
    page.get_by_role("button", name="Example: 7").click()
    expect(page.locator("#error")).to_contain_text("You are offline. Your drawing is kept")
    page.context.set_offline(False)
    expect(page.locator("#reading")).to_have_text("7")
    expect(page.locator("#error")).to_be_empty()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#reading")).to_have_text("1")
    # Chromium reports each failed request as an error.
    assert console_errors
    assert all("net::ERR_INTERNET_DISCONNECTED" in error for error in console_errors)
    console_errors.clear()


def test_model_server_stopped_then_continued_keeps_drawing_and_shows_prediction(
    open_page: Callable[..., Page], canary_service: CanaryService, console_errors: list[str]
) -> None:
    page = open_page(canary_service.url)
    canary_service.model_server.send_signal(signal.SIGSTOP)
    try:
        draw(page, 1)
        expect(page.locator("#error")).to_contain_text("Your drawing is kept")
        expect(page.locator("#reading")).to_be_empty()
    finally:
        canary_service.model_server.send_signal(signal.SIGCONT)
    expect(page.locator("#reading")).to_have_text("1")
    expect(page.locator("#error")).to_be_empty()
    # Chromium reports each response of status 503 or 504 as an error.
    assert all("status of 50" in error for error in console_errors)
    console_errors.clear()
