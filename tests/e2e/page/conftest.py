"""Fixtures: one browser and one instance of each service for all tests of the page."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from digit_client.images import to_png
from digit_serving.gateway.auth import KeyFile
from tests.e2e.page.services import CanaryService, ProtectedService
from tests.e2e.page.stub import ORIGIN, StubGateway
from tests.processes import DIGITS, accepts, answers, free_port, is_ready, running, wait_until

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
def new_page(browser: Browser, console_errors: list[str]) -> Iterator[Callable[..., Page]]:
    """Return a function that creates an empty page in a new context. Fails the test on console errors."""
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
    assert console_errors == []


@pytest.fixture
def open_page(new_page: Callable[..., Page], url: str) -> Callable[..., Page]:
    """Return a function that opens the page in a new context."""

    def open_page(address: str = url, **options: Any) -> Page:
        page = new_page(**options)
        page.goto(address)
        return page

    return open_page


@pytest.fixture
def open_task(new_page: Callable[..., Page]) -> Callable[..., Page]:
    """Return a function that opens the page of a stub gateway in a new context."""

    def open_task(gateway: StubGateway, query: str = "", **options: Any) -> Page:
        page = new_page(**options)
        gateway.serve(page.context)
        page.goto(f"{ORIGIN}/{query}")
        return page

    return open_task


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    """The page on a desktop."""
    return open_page()


@pytest.fixture(scope="session")
def url(models: Path) -> Iterator[str]:
    """URL of `digits up` with one version of a model."""
    with stack(models.parent) as url:
        yield url


@contextmanager
def stack(models: Path) -> Iterator[str]:
    """Run `digits up` with these models until the end of the block; return its URL."""
    ports = {name: str(free_port()) for name in ("DIGITS_PORT", "DIGITS_GRPC_PORT", "DIGITS_REST_PORT")}
    with running("up", "--models", str(models), environment=ports) as process:
        url = f"http://127.0.0.1:{ports['DIGITS_PORT']}"
        wait_until(lambda: is_ready(url), process)
        yield url


# Model of the mean colour, without training: "grey" is likely where no colour is brighter than the others.
COLORS_MODEL = """
import sys, keras, numpy as np
pixels = keras.Input((64, 48, 3))
mean = keras.layers.GlobalAveragePooling2D()(pixels)
answer = keras.layers.Dense(4, activation="softmax")
model = keras.Model(pixels, answer(mean))
excess = 12 * np.eye(3) - 4
answer.set_weights([np.hstack((excess, np.zeros((3, 1)))), np.array([0, 0, 0, 2])])
model.save(sys.argv[1])
"""
COLORS_CARD = """
name = "colors"
labels = ["red", "green", "blue", "grey"]
[input]
range = [-1, 1]
"""
COLORS = {"red": (200, 60, 60), "green": (60, 200, 60), "blue": (60, 60, 200), "grey": (120, 120, 120)}


@pytest.fixture(scope="session")
def colors_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the model of colours, as `digits export` publishes it."""
    folder = tmp_path_factory.mktemp("colors")
    for name, color in COLORS.items():
        (folder / "data" / name).mkdir(parents=True)
        picture = np.tile(np.array(color, np.uint8), (100, 80, 1))
        (folder / "data" / name / f"{name}.png").write_bytes(to_png(picture))
    (folder / "colors.toml").write_text(COLORS_CARD)
    file = folder / "colors.keras"
    subprocess.run([sys.executable, "-c", COLORS_MODEL, file], check=True)
    command = [*DIGITS, "export", file, "--task", folder / "colors.toml", "--data", folder / "data"]
    subprocess.run([*map(str, command), "--models", str(folder / "models")], check=True)
    return folder / "models" / "colors"


@pytest.fixture(scope="session")
def tasks_url(models: Path, colors_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of `digits up` with two models: digits, the default, and colors."""
    folder = tmp_path_factory.mktemp("tasks")
    shutil.copytree(models, folder / "digits")
    shutil.copytree(colors_model, folder / "colors")
    with stack(folder) as url:
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
    for version in ("1", "2", "3"):
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
        "DIGITS_DEADLINE": "2",
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
        "DIGITS_DEFAULT_LABEL": "",
        "DIGITS_API_KEYS": str(file.path),
        "DIGITS_WORKERS": "1",
    }
    with running("gateway", environment=settings) as process:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: is_ready(url), process)
        yield ProtectedService(url, key)
