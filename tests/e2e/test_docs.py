"""The page /docs in a real browser that has no other address to reach than the gateway's."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
# A machine that does much else besides is slow, not broken.
expect.set_options(timeout=30_000)

FIVE = Path(__file__).parents[2] / "docs" / "five.jpg"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        # As root, as in CI, it has no sandbox of its own; and no name but the gateway's leads anywhere.
        arguments = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        with playwright.chromium.launch(executable_path=CHROMIUM, args=arguments) as browser:
            yield browser


@pytest.fixture
def page(browser: Browser, gateway: str) -> Iterator[Page]:
    """The page, opened. At the end it must have asked nobody but the gateway, and have told of no error."""
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


def test_it_shows_what_there_is(page: Page) -> None:
    expect(page.locator(".title")).to_contain_text("Digits")
    expect(page.locator("[id$=-predict]")).to_contain_text("What digit each image shows.")
    expect(page.locator(".opblock")).to_have_count(7)


def test_it_lists_the_models(page: Page) -> None:
    try_it(page, "listModels")
    assert "AVAILABLE" in execute(page)


def test_it_reads_the_example(page: Page) -> None:
    try_it(page, "predict")
    assert '"digit": 1' in execute(page)


@pytest.mark.parametrize("media_type", ["image/*", "multipart/form-data"])
def test_it_reads_a_file(page: Page, media_type: str) -> None:
    try_it(page, "predict")
    page.get_by_label("Request content type").select_option(media_type)
    page.locator("input[type=file]").set_input_files(FIVE)
    assert '"digit": 5' in execute(page)
