"""`docker compose up` with Docker; the drop-in takes the place of TensorFlow Serving, as on ARM."""

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import keras
import numpy as np
import pytest
from keras import layers

from digit_client import CardInput, Client, TaskCard
from digit_core.images import to_png
from digit_training import export
from tests.commands import parse
from tests.load import load
from tests.processes import answers, free_port, require_running, run, wait_until
from tests.readme import ROOT, blocks

pytestmark = pytest.mark.containers

MEGABYTE = 1e6
REMOVAL = ("down", "--volumes", "--remove-orphans")
GPU = ["-f", "docker-compose.yml", "-f", "docker-compose.gpu.yml"]
RUN_RELEASES = ("run", "--rm", "--no-TTY", "releases")


@dataclass(frozen=True)
class Project:
    """Compose project that shares only images with other projects on this machine."""

    name: str
    port: int
    settings: dict[str, str]
    folder: Path = ROOT

    @property
    def url(self) -> str:
        """URL of the gateway."""
        return f"http://localhost:{self.port}"

    def compose(self, *arguments: str, **settings: str) -> str:
        """Run `docker compose …` with `settings` as further variables; return its output."""
        return self.run("docker", "compose", *arguments, **settings)

    def run(self, *command: str, **settings: str) -> str:
        """Run a command that has to succeed; return its output."""
        project = {"COMPOSE_PROJECT_NAME": self.name, "DIGITS_PORT": str(self.port)}
        environment = os.environ | project | self.settings | settings
        return run(*command, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def built(mnist_npz: Path) -> Iterator[Project]:
    """Project with built images, not started, and removed at the end except for its images."""
    require_running("docker")
    settings = {"MODEL_SERVER_IMAGE": "digits-model-server", "DIGITS_MNIST": str(mnist_npz)}
    project = Project("digits-tests", free_port(), settings)
    project.compose(*REMOVAL)
    project.compose("--profile", "drop-in", "build")
    try:
        yield project
    finally:
        project.compose(*REMOVAL)


@pytest.fixture
def project(built: Project) -> Project:
    """Project with running services; the first start publishes the shipped networks."""
    built.compose("up", "--detach", "--wait")
    return built


@pytest.fixture
def seven(digits: Any) -> bytes:
    return to_png(digits.one(7))


def post_image(http: httpx.Client, image: bytes) -> httpx.Response:
    return http.post("/v1/predict", content=image, headers={"Content-Type": "image/png"})


def publish_copy(project: Project, version: int, *options: str) -> None:
    """Publish a copy of version 1, if it is missing: a fit would take the services' CPU time."""
    folder = f"models/digits/{version}"
    command = f"[ -e {folder} ] || cp -r models/digits/1 {folder}; digits models verify {version}"
    project.compose(*options, *RUN_RELEASES, "sh", "-ec", command)


def services_of(project: Project, *options: str, image: str = "") -> dict[str, Any]:
    """Return the services of the configuration with this image of the model server."""
    config = project.compose(*options, "config", "--format", "json", MODEL_SERVER_IMAGE=image)
    services: dict[str, Any] = json.loads(config)["services"]
    return services


def test_compose_platform_is_amd64_for_tensorflow_serving_only(built: Project) -> None:
    for image, platform in (("", "linux/amd64"), ("digits-model-server", None)):
        assert services_of(built, image=image)["model-server"].get("platform") == platform


def test_compose_gpu_file_reserves_gpus(built: Project) -> None:
    services = services_of(built, *GPU, "--profile", "jobs")
    for name in ("training", "releases", "retrain", "model-server"):
        (device,) = services[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]
    for name in ("training", "releases", "retrain"):
        assert services[name]["image"] == "digits-training-gpu"
    assert services["training"]["build"]["args"] == {"EXTRA": "gpu"}
    assert services["model-server"]["image"] == "tensorflow/serving:2.20.0-gpu"
    # Other options are kept.
    assert "--enable_profiler=false" in services["model-server"]["command"]


def test_compose_up_publishes_serves_and_answers(project: Project, digits: Any) -> None:
    assert "Published: models/digits/1" in project.compose("logs", "training")
    with Client(project.url) as client:
        pictures = [to_png(digits.one(digit)) for digit in range(10)]
        answers = [client.predict(picture) for picture in pictures]
    assert sum(answer.digit == digit for digit, answer in enumerate(answers)) >= 9
    models = httpx.get(f"{project.url}/v1/models").json()
    assert models["version_labels"]["stable"] == 1
    project.compose("down")
    project.compose("up", "--detach", "--wait")
    assert "Published already" in project.compose("logs", "training")
    assert httpx.get(f"{project.url}/v1/models").json()["version_labels"] == models["version_labels"]


def next_versions(responses: list[httpx.Response], callers: int) -> set[int]:
    """Return the versions that answer the next requests: enough for a share of a tenth to be among them."""
    start = len(responses) + callers
    wait_until(lambda: len(responses) > start + 300, seconds=120)
    return {response.json()["model"]["version"] for response in responses[start:]}


def test_compose_releases_under_load_with_a_canary_drop_no_request(project: Project, seven: bytes) -> None:
    publish_copy(project, 2)
    with (
        httpx.Client(base_url=project.url, timeout=20) as http,
        load(lambda: post_image(http, seven), callers=8) as responses,
    ):
        publish_copy(project, 3)
        assert next_versions(responses, 8) == {1}
        for command, expected in (
            ("promote 2 --version-label canary", {1}),
            ("promote 2 --version-label canary --share 0.1", {1, 2}),
            ("promote 3", {3, 2}),
            ("rollback", {1, 2}),
            ("promote 2 --version-label canary --share 0", {1}),
        ):
            project.compose(*RUN_RELEASES, "digits", "models", *command.split())
            assert next_versions(responses, 8) == expected
    assert {response.status_code for response in responses} == {200}


def health(project: Project, service: str) -> str:
    """Return a service's health: starting, healthy or unhealthy."""
    return project.compose("ps", "--format", "{{.Health}}", service).strip()


def test_compose_hanging_model_server_is_killed_and_restarts(project: Project, seven: bytes) -> None:
    with httpx.Client(base_url=project.url, timeout=20) as http:
        project.compose("exec", "--no-TTY", "model-server", "bash", "-c", "kill -STOP -1")
        assert post_image(http, seven).status_code == 503
        assert http.get("/readyz").status_code == 503
        assert http.get("/livez").status_code == 200
        wait_until(lambda: http.get("/readyz").status_code == 200, seconds=75)
        assert post_image(http, seven).json()["predictions"][0]["digit"] == 7
    wait_until(lambda: health(project, "gateway") == "healthy", seconds=20)


def test_gateway_survives_more_bodies_than_its_memory_holds(project: Project, seven: bytes) -> None:
    size, count = 8 << 20, 600
    head = (
        b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"
        % size
    )
    body = bytes(size - 1024)

    def worker_exits() -> list[str]:
        return re.findall(r"^digits_worker_exits_total .*", httpx.get(f"{project.url}/metrics").text, re.M)

    def send(connection: socket.socket) -> None:
        # The gateway closes connections whose bodies it refuses.
        with suppress(OSError):
            connection.sendall(head + body)

    before = worker_exits()
    with ExitStack() as stack:
        address = ("localhost", project.port)
        connections = [stack.enter_context(socket.create_connection(address, 20)) for _ in range(count)]
        with ThreadPoolExecutor(32) as pool:
            list(pool.map(send, connections))
        assert answers(f"{project.url}/livez")
    with httpx.Client(base_url=project.url, timeout=20) as http:
        wait_until(lambda: post_image(http, seven).status_code == 200)
    container = project.compose("ps", "--quiet", "gateway").strip()
    state = "{{.HostConfig.Memory}} {{.State.OOMKilled}} {{.RestartCount}}"
    assert project.run("docker", "inspect", "--format", state, container).split() == [
        str(2 << 30),
        "false",
        "0",
    ]
    assert worker_exits() == before


def test_compose_with_documented_tls_promotes_and_rolls_back(project: Project, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "deploy-with-compose.md").read_text()
    (override,) = [block for block in blocks("yaml", page) if "DIGITS_TLS_CERTIFICATE" in block]
    (tmp_path / "override.yml").write_text(override.replace("./tls", f"{tmp_path}/tls"))
    (commands,) = re.findall(r"^mkdir tls\n.*?ca\.crt$", page, re.MULTILINE | re.DOTALL)
    subprocess.run(["bash", "-ec", f"{commands}; chmod 644 tls/tls.key"], cwd=tmp_path, check=True)
    for folder in (tmp_path, tmp_path.parent):
        folder.chmod(0o755)
    files = ("-f", "docker-compose.yml", "-f", str(tmp_path / "override.yml"))
    project.compose(*files, "up", "--detach", "--wait")
    trust = ssl.create_default_context(cafile=tmp_path / "tls" / "ca.crt")
    assert httpx.get(f"https://localhost:{project.port}/readyz", verify=trust).status_code == 200
    publish_copy(project, 4, *files)
    for change, version in (("promote 4", 4), ("rollback", 1)):
        printed = project.compose(*files, *RUN_RELEASES, "digits", "models", *change.split())
        assert f"Version {version} is stable." in printed


def test_compose_model_server_at_new_address_is_found(project: Project, seven: bytes) -> None:
    project.compose("stop", "model-server")
    wait_until(lambda: not answers(f"{project.url}/readyz"))
    # Another container takes the model server's old address.
    project.compose("run", "--detach", "--rm", "--no-deps", "gateway", "sleep", "20")
    project.compose("up", "--detach", "--wait", "model-server")
    with Client(project.url) as client:
        wait_until(lambda: answers(f"{project.url}/readyz"), seconds=10)
        assert client.predict(seven).digit == 7


def test_compose_feedback_survives_a_new_gateway(project: Project, seven: bytes) -> None:
    settings: dict[str, Any] = {
        "DIGITS_FEEDBACK": "sqlite:////feedback/feedback.db",
        "DIGITS_FEEDBACK_OPEN": "1",
    }
    project.compose("up", "--detach", "--wait", "gateway", **settings)
    with Client(project.url) as client:
        feedback = client.feedback(seven, 7)
    project.compose("up", "--detach", "--wait", "--force-recreate", "gateway", **settings)
    command = ("run", "--rm", "--no-deps", "--no-TTY", "retrain", "digits", "feedback", "ls")
    assert feedback.request_id in project.compose(*command, **settings)


def test_images_are_small_without_tensorflow_and_pip(built: Project) -> None:
    def run_in(image: str, program: str, code: str) -> str:
        return built.run("docker", "run", "--rm", "--entrypoint", program, image, "-c", code)

    for image in ("digits-gateway", "digits-training", "digits-model-server"):
        assert run_in(image, "sh", "find / -xdev -path '*-packages/pip*' 2>/dev/null; true") == ""
    has_tensorflow = "from importlib.util import find_spec; print(find_spec('tensorflow'))"
    assert run_in("digits-gateway", "python", has_tensorflow) == "None\n"
    sizes = [
        int(built.run("docker", "image", "inspect", "--format", "{{.Size}}", image))
        for image in ("digits-gateway", "python:3.13-slim")
    ]
    # OpenCV is two fifths of the size; feedback, Redis and OpenTelemetry are optional features.
    assert sizes[0] - sizes[1] < 370 * MEGABYTE


@pytest.fixture(scope="module")
def copy(built: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Copy of the project, in which commands may change files, before the same containers and volumes."""
    ignored = shutil.ignore_patterns(".*", "models", "runs", "__pycache__")
    folder = shutil.copytree(ROOT, tmp_path_factory.mktemp("readme") / "digits", ignore=ignored)
    shutil.copy(ROOT / ".dockerignore", folder)
    return replace(built, folder=folder)


@pytest.fixture
def own(copy: Project) -> Iterator[Project]:
    """The copy as a project of its own, not started, whose folder `models` has a model of shapes."""
    task = TaskCard("shapes", ("circle", "square"), CardInput((6, 8, 3), (0.0, 255.0)))
    model = keras.Sequential(
        [keras.Input(task.shape), layers.Flatten(), layers.Dense(2, activation="softmax")]
    )
    blank, card = np.zeros((1, *task.shape), np.uint8), {"task": task.to_document()}
    export.write_artifact(model, task, card, blank, copy.folder / "models" / "shapes" / "1")
    # The containers' user writes labels into the folder.
    for path in (*copy.folder.parents[:2], *copy.folder.glob("models/**")):
        path.chmod(0o777)
    project = replace(copy, name="digits-own-tests", port=free_port())
    try:
        yield project
    finally:
        project.compose(*REMOVAL)


def test_compose_serves_model_of_another_name(own: Project) -> None:
    (block,) = blocks("shell", (ROOT / "docs" / "tutorials" / "your-own-model.md").read_text())
    own.run("bash", "-e", "-c", block)
    with Client(own.url) as client:
        assert client.predict(np.zeros((30, 40, 3), np.uint8)).labels == ("circle", "square")
        assert client.models().name == "shapes"


def test_documentation_commands_succeed(copy: Project) -> None:
    copy.compose("up", "--detach", "--wait")
    publish_copy(copy, 2)
    # One test: some blocks use what others have made.
    for block in blocks("shell"):
        block = block.replace("localhost:8080", f"localhost:{copy.port}").replace("{1..100}", "{1..30}")
        # Commands that need public images or a GPU are validated, not run.
        block = re.sub(
            r"^(.*(?:observability|gpu).*) up .*$", r"\1 config --quiet", block, flags=re.MULTILINE
        )
        # Version 2 is there already; `retrain` fits.
        for fit in re.findall(r"(?m)^docker compose run --rm training digits (train .*)\n", block):
            parse(fit.split())
            block = block.replace(f"docker compose run --rm training digits {fit}\n", "")
        copy.run("bash", "-e", "-c", block)
        if block.startswith("docker compose down"):
            copy.compose("up", "--detach", "--wait")
