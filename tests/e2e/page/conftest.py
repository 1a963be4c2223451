"""Fixtures: one browser and one service for all tests of the page."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from digit_core.artifact.models_folder import ModelsFolder
from tests.e2e.page.stub import ORIGIN, StubGateway
from tests.processes import Ports

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


@dataclass(frozen=True)
class Service:
    """Addresses of the gateway and of the model server, and the models folder."""

    url: str
    grpc: str
    models: Path


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
def expected_errors() -> list[str]:
    """Parts of errors in the browser's console that a test expects: Chromium reports each failed request."""
    return []


@pytest.fixture
def new_page(browser: Browser, expected_errors: list[str]) -> Iterator[Callable[..., Page]]:
    """Return a function that creates an empty page in a new context. Fails the test on unexpected errors."""
    console_errors: list[str] = []
    with ExitStack() as contexts:

        def new_page(**options: Any) -> Page:
            context = contexts.enter_context(browser.new_context(**({"viewport": DESKTOP} | options)))
            page = context.new_page()
            page.on("pageerror", lambda error: console_errors.append(str(error)))
            page.on(
                "console",
                lambda message: console_errors.append(message.text) if message.type == "error" else None,
            )
            return page

        yield new_page
    assert [error for error in console_errors if not any(part in error for part in expected_errors)] == []


@pytest.fixture
def open_page(new_page: Callable[..., Page], service: Service) -> Callable[..., Page]:
    """Return a function that opens a page of the service in a new context."""

    def open_page(path: str = "/", **options: Any) -> Page:
        page = new_page(**options)
        page.goto(service.url + path)
        return page

    return open_page


@pytest.fixture
def open_task(new_page: Callable[..., Page]) -> Callable[..., Page]:
    """Return a function that opens the page of a stub gateway in a new context."""

    def open_task(gateway: StubGateway, query: str = "", **options: Any) -> Page:
        page = new_page(**options)
        gateway.serve(page.context)
        page.goto(f"{ORIGIN}/{query}")
        page.locator("body[data-ready]").wait_for()
        return page

    return open_task


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    """The page on a desktop."""
    return open_page()


@pytest.fixture(scope="package")
def service(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """`digits up` with two models: digits, the default, of one version, and `compared` of three.

    Of these, 1 is stable, 2 the canary, and 3 a candidate.
    """
    root = shutil.copytree(models.parent, tmp_path_factory.mktemp("page") / "models")
    folder = ModelsFolder(root, verify=lambda _: None)
    for _ in range(3):
        folder.publish("compared", partial(shutil.copytree, models / "1", dirs_exist_ok=True))
    with folder.lock():
        folder.write_config(folder.read_config().with_label("compared", "canary", 2))
    ports = Ports()
    with ports.up(root):
        yield Service(ports.url, f"127.0.0.1:{ports.grpc}", root)
