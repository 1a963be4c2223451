"""Two versions of a model, which answer side by side."""

from collections.abc import Callable

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.e2e.page.pen import draw, write
from tests.e2e.page.services import CanaryService
from tests.e2e.page.test_accessibility import violations

pytestmark = pytest.mark.e2e


@pytest.fixture
def page(open_page: Callable[..., Page], canary_service: CanaryService) -> Page:
    page = open_page(canary_service.url)
    expect(page.get_by_label("Compare with version")).to_have_value("3")
    return page


def test_one_version_has_no_menu_and_no_column(open_page: Callable[..., Page], url: str) -> None:
    page = open_page()
    assert len(httpx.get(f"{url}/v1/models").json()["versions"]) == 1
    page.locator("body[data-ready]").wait_for()
    expect(page.get_by_label("Compare with version")).to_be_hidden()
    expect(page.locator(".answer")).to_have_count(1)


def test_both_versions_answer_side_by_side(page: Page) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    menu = page.get_by_label("Compare with version")
    expect(menu.locator("option")).to_have_text(["none", "3", "2 · canary"])
    write(page, "17")
    expect(page.locator(".reading")).to_have_text(["17", "17"])
    expect(page.locator(".source")).to_contain_text(["Version 1 · stable", "Version 3"])
    expect(page.locator(".bars .best span")).to_have_text(["7", "7"])
    page.get_by_role("radio", name="1, digit 1 of 2").first.check()
    expect(page.locator(".bars .best span")).to_have_text(["1", "1"])
    asked = {url.partition("?")[2] for url in requests if "/v1/read" in url}
    assert asked == {"version=1&include=image", "version=3&include=image"}
    menu.select_option("2")
    expect(page.locator(".source")).to_contain_text(["Version 1 · stable", "Version 2 · canary"])
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".reading")).to_have_text(["", ""])


def test_comparison_with_none_leaves_the_default_version(page: Page) -> None:
    draw(page, 1)
    expect(page.locator(".reading")).to_have_text(["1", "1"])
    with page.expect_request(lambda request: "/v1/read?include" in request.url):
        page.get_by_label("Compare with version").select_option("none")
    expect(page.locator(".reading")).to_have_text(["1"])
    # The menu keeps the choice when the page looks for new versions.
    with page.expect_response("**/v1/models*"):
        page.evaluate("dispatchEvent(new Event('focus'))")
    expect(page.locator(".answer")).to_have_count(1)


def test_other_version_that_fails_leaves_the_answer(page: Page, console_errors: list[str]) -> None:
    page.route("**/v1/read?*version=3*", lambda route: route.fulfill(status=503))
    page.get_by_role("button", name="Example: 7").click()
    expect(page.locator(".certainty")).to_contain_text(
        ["The network is sure.", "The service is unavailable."]
    )
    expect(page.locator(".reading")).to_have_text(["7", ""])
    problem = {"status": 404, "code": "model_not_found", "detail": "Version 3 is not loaded."}
    page.route("**/v1/read?*version=3*", lambda route: route.fulfill(status=404, json=problem))
    page.get_by_role("button", name="Example: 3").click()
    expect(page.locator(".reading")).to_have_text(["3"])
    expect(page.get_by_label("Compare with version")).to_have_value("")
    # Chromium reports each response of status 503 or 404 as an error.
    assert all("503" in error or "404" in error for error in console_errors)
    console_errors.clear()


@pytest.mark.parametrize(("width", "scheme"), [(320, "light"), (390, "dark"), (768, "dark"), (1440, "light")])
def test_columns_of_any_width_and_scheme_have_no_violations_and_no_overflow(
    open_page: Callable[..., Page], canary_service: CanaryService, width: int, scheme: str
) -> None:
    page = open_page(
        canary_service.url,
        viewport={"width": width, "height": 844},
        color_scheme=scheme,
        reduced_motion="reduce",
    )
    page.get_by_role("button", name="Example: photo").click()
    expect(page.locator(".reading p")).to_have_text(["2026", "17"] * 2)
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    tops = page.locator(".answer").evaluate_all("all => all.map((each) => each.getBoundingClientRect().top)")
    assert tops[0] == tops[1]
