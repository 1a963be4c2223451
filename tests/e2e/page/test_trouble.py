"""A service that can't be reached, or has too much to do."""

import signal

from playwright.sync_api import Browser, Page, expect

from tests.e2e.page.conftest import Pair
from tests.e2e.page.pen import write


def test_offline_and_back(page: Page, errors: list[str]) -> None:
    write(page, 1)
    expect(page.locator("#digit")).to_have_text("1")
    page.context.set_offline(True)
    page.get_by_role("button", name="Example: 7").click()
    expect(page.locator("#trouble")).to_contain_text("You are offline. Your drawing is kept")
    page.context.set_offline(False)
    expect(page.locator("#digit")).to_have_text("7")
    expect(page.locator("#trouble")).to_be_empty()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#digit")).to_have_text("1")
    # Chromium itself tells of every request that fails.
    assert errors
    assert all("net::ERR_INTERNET_DISCONNECTED" in error for error in errors)
    errors.clear()


def test_busy_and_back(browser: Browser, pair: Pair) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(pair.url)
        pair.model_server.send_signal(signal.SIGSTOP)
        try:
            write(page, 1)
            expect(page.locator("#trouble")).to_contain_text("Your drawing is kept")
            expect(page.locator("#digit")).to_be_empty()
        finally:
            pair.model_server.send_signal(signal.SIGCONT)
        expect(page.locator("#digit")).to_have_text("1")
        expect(page.locator("#trouble")).to_be_empty()
