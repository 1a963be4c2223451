"""Menu of the model versions that are served."""

from collections.abc import Callable

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.e2e.page.pen import draw
from tests.e2e.page.services import CanaryService

pytestmark = pytest.mark.e2e


def test_version_menu_with_one_version_is_hidden(page: Page, url: str) -> None:
    assert len(httpx.get(f"{url}/v1/models").json()["versions"]) == 1
    expect(page.locator("#version option")).to_have_text(["Default", "1"])
    expect(page.get_by_label("Version")).to_be_hidden()


def test_version_menu_choice_selects_version_of_prediction(
    open_page: Callable[..., Page], canary_service: CanaryService
) -> None:
    page = open_page(canary_service.url)
    menu = page.get_by_label("Version")
    expect(menu).to_be_visible()
    expect(menu.locator("option")).to_have_text(["Default", "3", "2 · canary", "1 · stable"])
    draw(page, 1)
    expect(page.locator("#source")).to_contain_text("Version 1 answered")
    # The candidate, which has no label.
    menu.select_option("3")
    expect(page.locator("#source")).to_contain_text("Version 3 answered")


def test_version_menu_choice_of_unloaded_version_falls_back_to_default(
    open_page: Callable[..., Page], canary_service: CanaryService, console_errors: list[str]
) -> None:
    page = open_page(canary_service.url)
    menu = page.get_by_label("Version")
    expect(menu.locator("option")).to_have_count(4)
    menu.evaluate("select => { select.append(new Option('9', '9')); select.value = '9'; }")
    draw(page, 1)
    expect(page.locator("#source")).to_contain_text("Version 1 answered")
    expect(menu).to_have_value("")
    expect(menu.locator("option")).to_have_count(4)
    # Chromium reports the response of status 404 as an error.
    assert all("404" in error for error in console_errors)
    console_errors.clear()
