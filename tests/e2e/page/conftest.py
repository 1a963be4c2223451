"""The page in a real Chromium, before real services."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.processes import accepts, answers, free_port, running, wait_until

# What Chromium else asks of the network by itself.
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
DESKTOP = {"width": 1440, "height": 900}

# A machine that does much else besides is slow, not broken.
expect.set_options(timeout=30_000)


# No longer than for a module: as long as Playwright runs, no test can run an event loop of its own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if not path:
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def url(models: Path) -> Iterator[str]:
    """Where `digits up` serves the page."""
    ports = {name: str(free_port()) for name in ("DIGITS_PORT", "DIGITS_GRPC_PORT", "DIGITS_REST_PORT")}
    with running("up", "--models", str(models), environment=ports) as process:
        url = f"http://127.0.0.1:{ports['DIGITS_PORT']}"
        wait_until(lambda: answers(f"{url}/readyz"), process)
        yield url


@pytest.fixture
def errors() -> list[str]:
    """What the browser's console complains about. There is to be nothing left at the end of a test."""
    return []


@pytest.fixture
def page(browser: Browser, url: str, errors: list[str]) -> Iterator[Page]:
    """The page as it opens on a desktop."""
    with browser.new_context(viewport=DESKTOP) as context:  # type: ignore[arg-type]
        page = context.new_page()
        watch(page, errors)
        page.goto(url)
        yield page
    assert errors == []


def watch(page: Page, errors: list[str]) -> None:
    """Add what the page's console complains about to the list."""
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)


@dataclass(frozen=True)
class Pair:
    """A gateway before a model server that has versions 1 and 2, labelled stable and canary."""

    url: str
    model_server: Popen[bytes]


CONFIG = """
model_config_list {{ config {{
  name: "digits" base_path: "{folder}" model_platform: "tensorflow" model_version_policy {{ all {{}} }}
  version_labels {{ key: "stable" value: 1 }} version_labels {{ key: "canary" value: 2 }}
}} }}
"""


@pytest.fixture(scope="session")
def pair(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("two") / "digits"
    for version in ("1", "2"):
        shutil.copytree(models / "1", folder / version)
    config = folder.parent / "models.config"
    config.write_text(CONFIG.format(folder=folder))
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
            yield Pair(f"http://127.0.0.1:{http}", model_server)
