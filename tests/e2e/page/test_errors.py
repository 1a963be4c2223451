"""A service that is offline or slow, and recovery."""

import pytest
from playwright.sync_api import Page, Route, expect

from tests.e2e.page.accessibility import violations
from tests.e2e.page.pen import draw
from tests.e2e.page.responses import reading_of

pytestmark = pytest.mark.e2e


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
