"""The documentation's fetch example, on a page of another origin."""

import base64
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from playwright.sync_api import Page

from digit_client.images import to_png
from digit_serving.gateway.auth import KeyFile
from tests.processes import free_port, is_ready, running, wait_until
from tests.readme import blocks

pytestmark = pytest.mark.e2e

# Runs the example with a file, and returns the prediction or the error's message.
CALL = """async ([example, file, url, key]) => {
  const predict = new Function(`${example}; return predict;`)();
  const bytes = Uint8Array.from(atob(file), character => character.charCodeAt(0));
  try {
    return await predict(new Blob([bytes], {type: "image/png"}), url, key);
  } catch (error) {
    return error.message;
  }
}"""


@pytest.fixture(scope="module")
def other_origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Origin with an empty page."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "index.html").write_text("<!doctype html><link rel=icon href=data:,>")
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("is_allowed", [True, False])
def test_fetch_example_is_answered_where_the_origin_is_allowed(
    is_allowed: bool,
    new_page: Callable[..., Page],
    console_errors: list[str],
    model_server: str,
    other_origin: str,
    digits: Any,
    tmp_path: Path,
) -> None:
    (example,) = blocks("js")
    port, file = free_port(), KeyFile(tmp_path / "keys")
    url, key = f"http://127.0.0.1:{port}", file.add("shop")
    settings = {
        "DIGITS_PORT": str(port),
        "DIGITS_MODEL_SERVER": model_server,
        "DIGITS_DEFAULT_LABEL": "",
        "DIGITS_API_KEYS": str(file.path),
        "DIGITS_CORS_ORIGINS": other_origin if is_allowed else "",
        "DIGITS_WORKERS": "1",
    }
    page = new_page()
    page.goto(other_origin)
    picture = base64.b64encode(to_png(digits.one(7))).decode()
    with running("gateway", environment=settings) as gateway:
        wait_until(lambda: is_ready(url), gateway)
        answer = page.evaluate(CALL, [example, picture, url, key])
        refusal = page.evaluate(CALL, [example, picture, url, None])
    # Chromium reports each refused response.
    console_errors.clear()
    if is_allowed:
        assert answer == "7"
        assert refusal.startswith("unauthorized: ")
    else:
        assert answer == refusal == "Failed to fetch"
