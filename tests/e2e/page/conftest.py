"""Fixtures: one browser and one instance of each service for all tests of the page."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from digit_serving.gateway.auth import KeyFile
from tests.e2e.page.services import CanaryService, ProtectedService
from tests.processes import accepts, answers, free_port, running, wait_until

# No background requests of Chromium itself, and no host but the services under test.
BROWSER_ARGUMENTS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
DESKTOP = {"width": 1440, "height": 900}

# A busy machine must not fail a test.
expect.set_options(timeout=30_000)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Run all tests of the page on one worker of pytest-xdist: they share the browser and the services."""
    item.add_marker(pytest.mark.xdist_group("page"))


# Package scope: no test outside can run an event loop in this process while Playwright runs its own.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if not path:
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=BROWSER_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def console_errors() -> list[str]:
    """Errors in the browser's console. A test removes those that it expects."""
    return []


@pytest.fixture
def open_page(browser: Browser, url: str, console_errors: list[str]) -> Iterator[Callable[..., Page]]:
    """Return a function that opens the page in a new context. Fails the test on unexpected console errors."""
    with ExitStack() as contexts:

        def open_page(address: str = url, **options: Any) -> Page:
            context = contexts.enter_context(browser.new_context(**({"viewport": DESKTOP} | options)))
            page = context.new_page()
            page.on("pageerror", lambda error: console_errors.append(str(error)))
            page.on(
                "console",
                lambda message: console_errors.append(message.text) if is_unexpected(message) else None,
            )
            page.goto(address)
            return page

        yield open_page
    assert console_errors == []


def is_unexpected(message: ConsoleMessage) -> bool:
    """True for errors but those of refused pictures: the beginning of a digit is no digit yet."""
    is_refusal = "status of 422" in message.text and "/v1/read" in message.location["url"]
    return message.type == "error" and not is_refusal


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    """The page on a desktop."""
    return open_page()


@pytest.fixture(scope="session")
def url(models: Path) -> Iterator[str]:
    """URL of `digits up` with one version of a model."""
    ports = {name: str(free_port()) for name in ("DIGITS_PORT", "DIGITS_GRPC_PORT", "DIGITS_REST_PORT")}
    with running("up", "--models", str(models), environment=ports) as process:
        url = f"http://127.0.0.1:{ports['DIGITS_PORT']}"
        wait_until(lambda: answers(f"{url}/readyz"), process)
        yield url


MODELS_CONFIG = """
model_config_list {{ config {{
  name: "digits" base_path: "{folder}" model_platform: "tensorflow" model_version_policy {{ all {{}} }}
  version_labels {{ key: "stable" value: 1 }} version_labels {{ key: "canary" value: 2 }}
}} }}
"""


@pytest.fixture(scope="session")
def canary_service(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CanaryService]:
    folder = tmp_path_factory.mktemp("canary") / "digits"
    for version in ("1", "2"):
        shutil.copytree(models / "1", folder / version)
    config = folder.parent / "models.config"
    config.write_text(MODELS_CONFIG.format(folder=folder))
    grpc, http = free_port(), free_port()
    flags = [
        f"--port={grpc}",
        f"--model_config_file={config}",
        "--allow_version_labels_for_unavailable_models=true",
    ]
    settings = {
        "DIGITS_PORT": str(http),
        "DIGITS_MODEL_SERVER": f"127.0.0.1:{grpc}",
        "DIGITS_DEADLINE": "0.5",
        "DIGITS_WORKERS": "1",
    }
    with running("model-server", *flags) as model_server:
        wait_until(lambda: accepts(grpc), model_server)
        with running("gateway", environment=settings) as gateway:
            wait_until(lambda: answers(f"http://127.0.0.1:{http}/readyz"), gateway)
            yield CanaryService(f"http://127.0.0.1:{http}", model_server)


@pytest.fixture(scope="session")
def protected_service(
    model_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProtectedService]:
    port, file = free_port(), KeyFile(tmp_path_factory.mktemp("keys") / "keys")
    key = file.add("pupil")
    settings = {
        "DIGITS_PORT": str(port),
        "DIGITS_MODEL_SERVER": model_server,
        "DIGITS_API_KEYS": str(file.path),
        "DIGITS_WORKERS": "1",
    }
    with running("gateway", environment=settings) as process:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/readyz"), process)
        yield ProtectedService(url, key)
