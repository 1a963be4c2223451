"""Swagger UI at /docs, which requests nothing from other hosts."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.page.accessibility import violations
from tests.e2e.page.conftest import Service
from tests.e2e.page.test_images import FIVE

pytestmark = pytest.mark.e2e


@pytest.fixture
def docs(page: Page, service: Service) -> Iterator[Page]:
    """The documentation, by the page's link. Fails the test if it requests another origin."""
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.get_by_role("link", name="API docs").click()
    page.locator(".opblock").first.wait_for()
    yield page
    assert all(address.startswith(service.url) for address in requested), requested


def execute(page: Page) -> str:
    """Send the request; return the text of the successful response."""
    page.get_by_role("button", name="Execute").click()
    response = page.locator(".live-responses-table .response")
    expect(response.locator(".response-col_status")).to_contain_text("200")
    return response.inner_text()


def test_docs_send_example_and_file_and_follow_colour_scheme_without_violations(docs: Page) -> None:
    predict = docs.locator("[id$=-predict]")
    predict.locator(".opblock-summary-control").click()
    predict.get_by_role("button", name="Try it out").click()
    assert '"digit": 1' in execute(docs)
    for is_dark in (True, False):
        docs.emulate_media(color_scheme="dark" if is_dark else "light")
        background = docs.locator("body").evaluate("it => getComputedStyle(it).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) == is_dark
        assert violations(docs) == []
    docs.get_by_role("button", name="Clear").click()
    docs.get_by_label("Request content type").select_option("image/*")
    docs.locator("input[type=file]").set_input_files(FIVE)
    assert '"digit": 5' in execute(docs)
