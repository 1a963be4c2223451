"""Swagger UI at /docs in a browser that reaches no address but the gateway's."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

pytestmark = pytest.mark.e2e

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
# Generous timeout for a loaded machine.
expect.set_options(timeout=30_000)

FIVE = Path(__file__).parents[2] / "docs" / "five.jpg"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        # Chromium has no sandbox as root. The resolver rule blocks every other host.
        arguments = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        with playwright.chromium.launch(executable_path=CHROMIUM, args=arguments) as browser:
            yield browser


@pytest.fixture
def page(browser: Browser, gateway: str) -> Iterator[Page]:
    """The page, opened. Fail at the end after a console error or a request to another host."""
    page = browser.new_page()
    errors: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: errors.extend([message.text] if message.type == "error" else []))
    page.on("pageerror", lambda error: errors.append(error.message))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{gateway}/docs")
    yield page
    page.close()
    assert not errors
    assert all(url.startswith(gateway) for url in asked), asked


def try_it(page: Page, operation: str) -> None:
    page.locator(f"[id$={operation}] .opblock-summary-control").click()
    page.locator(f"[id$={operation}]").get_by_role("button", name="Try it out").click()


def execute(page: Page) -> str:
    page.get_by_role("button", name="Execute").click()
    answer = page.locator(".live-responses-table .response")
    expect(answer.locator(".response-col_status")).to_contain_text("200")
    return answer.inner_text()


def test_docs_page_lists_operations(page: Page) -> None:
    expect(page.locator(".title")).to_contain_text("Digits")
    expect(page.locator("[id$=-predict]")).to_contain_text("What digit each image shows.")
    expect(page.locator(".opblock")).to_have_count(7)


def test_docs_list_models_executes(page: Page) -> None:
    try_it(page, "listModels")
    assert "AVAILABLE" in execute(page)


def test_docs_predict_example_executes(page: Page) -> None:
    try_it(page, "predict")
    assert '"digit": 1' in execute(page)


@pytest.mark.parametrize("media_type", ["image/*", "multipart/form-data"])
def test_docs_predict_file_executes(page: Page, media_type: str) -> None:
    try_it(page, "predict")
    page.get_by_label("Request content type").select_option(media_type)
    page.locator("input[type=file]").set_input_files(FIVE)
    assert '"digit": 5' in execute(page)
