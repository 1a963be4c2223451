"""The API in the browser: its documentation, and a service with API keys, CORS and no reader."""

import base64
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from digit_core.images import to_png
from digit_serving.gateway.auth import KeyFile
from tests.e2e.page.accessibility import violations
from tests.e2e.page.conftest import Service
from tests.e2e.page.pen import draw
from tests.e2e.page.steps import show_example
from tests.e2e.page.test_images import FIVE
from tests.processes import gateway_process, is_ready, wait_until
from tests.readme import blocks

pytestmark = pytest.mark.e2e

# Runs the documentation's example with a file, and returns the prediction or the error's message.
CALL = """async ([example, file, url, key]) => {
  const predict = new Function(`${example}; return predict;`)();
  const bytes = Uint8Array.from(atob(file), character => character.charCodeAt(0));
  try {
    return await predict(new Blob([bytes], {type: "image/png"}), url, key);
  } catch (error) {
    return error.message;
  }
}"""


@dataclass(frozen=True)
class Gateway:
    """Gateway with API keys, and a valid key. The other service's pages may call it."""

    url: str
    key: str


@pytest.fixture(scope="module")
def gateway(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    keys = KeyFile(tmp_path_factory.mktemp("keys") / "keys")
    key = keys.add("pupil")
    settings: dict[str, Any] = {"api_keys": keys.path, "cors_origins": service.url, "reader": "none"}
    with gateway_process(service.grpc, **settings) as process:
        wait_until(lambda: is_ready(process.url), process.process)
        yield Gateway(process.url, key)


@pytest.fixture
def page(new_page: Callable[..., Page], gateway: Gateway, expected_errors: list[str]) -> Page:
    """The page of the gateway, which refuses requests without a key, and has no reader."""
    expected_errors += ["401", "404"]
    page = new_page()
    page.goto(gateway.url)
    return page


def test_api_key_dismissed_shows_error_and_right_one_is_kept(page: Page, gateway: Gateway) -> None:
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    draw(page, 1)
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#error")).to_contain_text("Send a key of this service")
    page.reload()
    for key in ("wrong", gateway.key):
        expect(page.get_by_role("dialog")).to_be_visible()
        page.get_by_label("This service requires an API key").fill(key)
        page.get_by_role("button", name="Use key").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.reload()
    draw(page, 1)
    expect(page.locator(".reading")).to_have_text("1")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_service_without_reader_is_asked_once_and_classifies_drawings(page: Page, gateway: Gateway) -> None:
    page.add_init_script(f"sessionStorage['digits-key'] = '{gateway.key}'")
    page.reload()
    paths: list[str] = []
    page.on("request", lambda request: paths.append(request.url.partition("/v1/")[2].partition("?")[0]))
    for digit in ("1", "7"):
        show_example(page, digit)
    expect(page.locator("#error")).to_be_empty()
    # One model has no menu, and a service without a store no feedback.
    for part in ("#model", "#feedback"):
        expect(page.locator(part)).to_be_hidden()
    assert [path for path in paths if path in ("read", "predict")] == ["read", "predict", "predict"]


def test_fetch_example_on_page_of_allowed_origin_is_answered(
    open_page: Callable[..., Page], expected_errors: list[str], gateway: Gateway, digits: Any
) -> None:
    expected_errors += ["401", "404"]
    (example,) = blocks("js")
    page = open_page("/livez")
    picture = base64.b64encode(to_png(digits.one(7))).decode()
    assert page.evaluate(CALL, [example, picture, gateway.url, gateway.key]) == "7"
    assert page.evaluate(CALL, [example, picture, gateway.url, None]).startswith("unauthorized: ")


@pytest.fixture
def docs(open_page: Callable[..., Page], service: Service) -> Iterator[Page]:
    """The documentation, by the page's link. Fails the test if it requests another origin."""
    page = open_page()
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
        # Colours in transition have other contrasts.
        docs.evaluate(
            "Promise.allSettled(document.getAnimations().map((each) => each.finished)).then(() => 0)"
        )
        assert violations(docs) == []
    docs.get_by_role("button", name="Clear").click()
    docs.get_by_label("Request content type").select_option("application/octet-stream")
    docs.locator("input[type=file]").set_input_files(FIVE)
    assert '"digit": 5' in execute(docs)
