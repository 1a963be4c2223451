"""Fixtures: one browser and one service for all tests of the page."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page, expect, sync_playwright

from digit_client import DIGITS, CardInput, TaskCard
from digit_core.artifact.models_folder import ModelsFolder
from digit_core.tfserving import codec
from digit_core.tfserving.protos import PredictRequest, PredictResponse
from tests.core.grpc_model_server import request_input
from tests.processes import Ports, gateway_process
from tests.serving.gateway.stub_model_server import StubModelServer, TaskModels, predict_response

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


FLOWERS = TaskCard("flowers", ("daisy", "rose", "tulip"), CardInput((64, 48, 3), (0.0, 255.0)))
LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
LONG_LABELS = tuple(f"{letter} flower with a rather long name, in Latin" for letter in "ABC")
TASKS = {
    task.name: task
    for task in (
        FLOWERS,
        DIGITS,
        replace(FLOWERS, name="several", threshold=(0.9, 0.1, 0.1)),
        replace(FLOWERS, name="latin", labels=LONG_LABELS),
        replace(FLOWERS, name="many", labels=tuple(f"class {number}" for number in range(100))),
        replace(FLOWERS, name="large", input=replace(FLOWERS.input, shape=(700, 700, 3))),
        TaskCard("halves", ("dark", "bright"), CardInput((40, 160, 1), (0.0, 255.0))),
        replace(DIGITS, name="letters", labels=LETTERS, input=CardInput((28, 28), (0.1, 0.7))),
    )
}


class BrightnessModels(TaskModels):
    """Models of TASKS: brighter pictures have later labels, and neighbours of a label are likely, too.

    `halves` sees the left top quarter only.
    """

    def __init__(self) -> None:
        super().__init__(**{name: {1: task} for name, task in TASKS.items()})

    def __call__(self, request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        response, spec = super().__call__(request, context), request.model_spec
        if spec.signature_name in (codec.CARD_SIGNATURE, codec.LAYERS_SIGNATURE):
            return response
        task, batch = self.tasks[spec.name][1], request_input(request)
        low, high = (0, 255) if spec.signature_name == "images" else task.range
        seen = batch[:, :20, :80] if task.name == "halves" else batch
        shares = (seen.reshape(len(seen), -1).mean(axis=1) - low) / (high - low)
        places = shares[:, None] * (len(task.labels) - 1)
        weights = np.exp(-np.abs(np.arange(len(task.labels)) - places))
        return predict_response((weights / weights.sum(axis=1, keepdims=True)).astype(np.float32))


@dataclass(frozen=True)
class TaskGateway:
    """Gateway that serves TASKS, `flowers` by default, and takes feedback."""

    url: str
    models: BrightnessModels

    def inputs(self, model: str) -> list[NDArray[Any]]:
        """Return the inputs of a model. A page that was left may still ask another one."""
        asked = zip(self.models.versions, self.models.inputs, strict=False)
        return [batch for (name, _), batch in asked if name == model]


@pytest.fixture(scope="package")
def task_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TaskGateway]:
    server = StubModelServer()
    server.answer = models = BrightnessModels()
    settings: dict[str, Any] = {
        "model_name": "flowers",
        "model_names": ",".join(TASKS.keys() - {"flowers"}),
        "feedback": f"sqlite:///{tmp_path_factory.mktemp('tasks')}/feedback.db",
        "feedback_open": True,
    }
    with gateway_process(server.target, **settings) as process:
        yield TaskGateway(process.url, models)
    server.close()


@pytest.fixture
def gateway(task_gateway: TaskGateway) -> TaskGateway:
    """Gateway whose models were not asked yet."""
    task_gateway.models.inputs.clear()
    task_gateway.models.versions.clear()
    return task_gateway


@pytest.fixture
def open_task(new_page: Callable[..., Page], gateway: TaskGateway) -> Callable[..., Page]:
    """Return a function that opens the page of a task in a new context."""

    def open_task(model: str = "", **options: Any) -> Page:
        page = new_page(**options)
        page.goto(f"{gateway.url}/{model and f'?model={model}'}")
        page.locator("body[data-ready]").wait_for()
        return page

    return open_task
