"""Swagger UI at /docs, which requests nothing from other hosts."""

import re
from collections.abc import Callable, Iterator
from typing import Literal

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.page.test_accessibility import violations
from tests.e2e.page.test_images import FIVE

pytestmark = pytest.mark.e2e


@pytest.fixture
def docs(open_page: Callable[..., Page], url: str) -> Iterator[Page]:
    """The documentation page. Fails the test if the page requests another origin."""
    page = open_page("about:blank")
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(f"{url}/docs")
    yield page
    assert all(address.startswith(url) for address in requested), requested


def try_out(page: Page, operation: str) -> None:
    """Open the form that sends a request of this operation."""
    page.locator(f"[id$={operation}] .opblock-summary-control").click()
    page.locator(f"[id$={operation}]").get_by_role("button", name="Try it out").click()


def execute(page: Page) -> str:
    """Send the request; return the text of the successful response."""
    page.get_by_role("button", name="Execute").click()
    response = page.locator(".live-responses-table .response")
    expect(response.locator(".response-col_status")).to_contain_text("200")
    return response.inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_docs_follow_colour_scheme_without_violations(docs: Page, scheme: Literal["light", "dark"]) -> None:
    docs.emulate_media(color_scheme=scheme)
    docs.locator(".opblock").first.wait_for()
    background = docs.locator("body").evaluate("it => getComputedStyle(it).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", background)[:3]))
    assert (brightness < 200) == (scheme == "dark")
    assert violations(docs) == []
    try_out(docs, "predict")
    assert '"digit": 1' in execute(docs)
    assert violations(docs) == []


def test_docs_page_lists_operations(docs: Page) -> None:
    expect(docs.locator(".title")).to_contain_text("Digits")
    expect(docs.locator("[id$=-predict]")).to_contain_text("Classify each image.")
    expect(docs.locator(".opblock")).to_have_count(8)


@pytest.mark.parametrize("media_type", ["image/*", "multipart/form-data"])
def test_docs_predict_file_executes(docs: Page, media_type: str) -> None:
    try_out(docs, "predict")
    docs.get_by_label("Request content type").select_option(media_type)
    docs.locator("input[type=file]").set_input_files(FIVE)
    assert '"digit": 5' in execute(docs)
