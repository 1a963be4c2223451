"""API key dialog of a service that requires a key."""

from collections.abc import Callable

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.e2e.page.pen import draw
from tests.e2e.page.services import ProtectedService

pytestmark = pytest.mark.e2e


def close_and_clear_unauthorized(page: Page, console_errors: list[str]) -> None:
    """Close the page, and remove the errors that Chromium reports for each response of status 401."""
    page.close()
    assert all("401" in error for error in console_errors)
    console_errors.clear()


def test_api_key_wrong_then_right_is_accepted_and_kept(
    open_page: Callable[..., Page], protected_service: ProtectedService, console_errors: list[str]
) -> None:
    page = open_page(protected_service.url)
    for key in ("wrong", protected_service.key):
        expect(page.get_by_role("dialog")).to_be_visible()
        page.get_by_label("This service requires an API key").fill(key)
        page.get_by_role("button", name="Use key").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    draw(page, 1)
    expect(page.locator(".reading")).to_have_text("1")
    page.reload()
    draw(page, 1)
    expect(page.locator(".reading")).to_have_text("1")
    expect(page.get_by_role("dialog")).to_be_hidden()
    close_and_clear_unauthorized(page, console_errors)


def test_api_key_dialog_dismissed_shows_error(
    open_page: Callable[..., Page], protected_service: ProtectedService, console_errors: list[str]
) -> None:
    page = open_page(protected_service.url)
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    draw(page, 1)
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    problem = httpx.post(f"{protected_service.url}/v1/predict").json()
    assert problem["code"] == "unauthorized"
    expect(page.locator("#error")).to_have_text(problem["detail"])
    close_and_clear_unauthorized(page, console_errors)
