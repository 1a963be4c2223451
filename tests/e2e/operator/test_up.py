"""`digits up` as a process, and `digits predict` with it."""

import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from digit_client import Client, ModelServerClient
from digit_core.artifact.models_folder import ModelsFolder
from digit_core.images import to_png
from digit_training.export import warmup_requests, write_warmup_requests
from tests.load import load
from tests.processes import DIGITS, ORIGINAL, Ports, answers, inheriting, is_ready, wait_until
from tests.serving.model_servers import COLORS, save_classifier

pytestmark = pytest.mark.e2e


@pytest.fixture
def ports() -> Ports:
    return Ports()


@contextmanager
def started(models: Path, ports: Ports, *options: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Start `digits up` as the leader of a process group; end it after the block."""
    process = subprocess.Popen(
        [*DIGITS, "up", "--models", str(models), *options],
        env={**os.environ, **ports.environment, "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=20)


def read_start(process: subprocess.Popen[str]) -> str:
    """Return what `digits up` prints until it is ready."""
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Open http://localhost:"):
            break
    return "".join(lines)


def pids_with_ports(ports: Ports, command: bytes = b"") -> list[int]:
    """Return the IDs of processes with these ports in their environment, all or those of `digits COMMAND`."""
    found = inheriting("DIGITS_GRPC_PORT", ports.grpc)
    return [pid for pid, arguments in found.items() if not command or command in arguments]


def parents_with_ports(ports: Ports, command: bytes) -> dict[int, int]:
    """Return the parents of the processes of `digits COMMAND` with these ports, by process ID."""
    found = {}
    for pid in pids_with_ports(ports, command):
        with suppress(FileNotFoundError, ProcessLookupError):
            found[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return found


def parent_with_ports(ports: Ports, command: bytes) -> int:
    """Return the ID of the process of `digits COMMAND` whose parent is none of them."""
    found = parents_with_ports(ports, command)
    (parent,) = (pid for pid, parent in found.items() if parent not in found)
    return parent


@pytest.fixture(scope="module", autouse=True)
def original_on_the_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let `digits up` find the binary of `make test-original`."""
    with pytest.MonkeyPatch.context() as patch:
        if ORIGINAL:
            folder = tmp_path_factory.mktemp("bin")
            (folder / "tensorflow_model_server").symlink_to(ORIGINAL)
            patch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        yield


@contextmanager
def serving(models: Path, ports: Ports) -> Iterator[str]:
    """Run `digits up` until the end of the block; yield what it prints until it is ready."""
    with started(models, ports) as process:
        out = read_start(process)
        wait_until(lambda: is_ready(ports.url), process)
        yield out
    assert pids_with_ports(ports) == []


@dataclass(frozen=True)
class Running:
    """Service of the models folder of the digits and of `colors`, which models.config did not have."""

    ports: Ports
    printed: str


@pytest.fixture(scope="module")
def service(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = publish(tmp_path_factory.mktemp("several"), models / "1")
    version = folder.root / "colors" / "1"
    save_classifier(version, COLORS)
    images = np.zeros((1, *COLORS.shape), np.uint8)
    write_warmup_requests(
        version / "assets.extra" / "tf_serving_warmup_requests", warmup_requests(COLORS, images)
    )
    ports = Ports()
    with serving(folder.root, ports) as printed:
        yield Running(ports, printed)


def test_up_listens_on_loopback_address_only(service: Running) -> None:
    for port in (service.ports.gateway, service.ports.grpc, service.ports.rest):
        socket.create_connection(("127.0.0.1", port)).close()
        # A socket on 0.0.0.0 would accept on 127.0.0.2 too.
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port))


def test_up_has_the_model_servers_metrics_where_prometheus_looks(service: Running) -> None:
    metrics = httpx.get(f"http://127.0.0.1:{service.ports.rest}/monitoring/prometheus/metrics")
    assert ":tensorflow:" in metrics.text


@pytest.mark.original
def test_up_serves_several_models(service: Running, digits: Any) -> None:
    assert "colors, digits; default: digits, the others follow" in service.printed
    with ModelServerClient(f"127.0.0.1:{service.ports.grpc}") as client:
        assert client.predict(digits.one(7)).digit == 7
    with Client(service.ports.url, model="colors") as colors:
        wait_until(lambda: answering(service.ports, digits, model="colors") == 1)
        assert colors.predict(np.zeros((30, 20, 3), np.uint8)).label in COLORS.labels
    listed = httpx.get(f"{service.ports.url}/v1/models").json()
    assert (listed["name"], sorted(listed["models"])) == ("digits", ["colors", "digits"])


def test_up_killed_process_starts_again_and_ctrl_c_stops_all(models: Path, ports: Ports, digits: Any) -> None:
    with started(models.parent, ports, DIGITS_LOG_LEVEL="info") as process:
        out = read_start(process)
        for command in (b"model-server", b"gateway"):
            killed = parent_with_ports(ports, command)
            os.kill(killed, signal.SIGKILL)
            wait_until(partial(_is_replaced, killed, process.pid, ports, command), process)
            wait_until(lambda: is_ready(ports.url), process)
            assert answering(ports, digits) == 1
        # A terminal signals every process of the foreground group.
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    for port in (ports.gateway, ports.grpc, ports.rest):
        assert f":{port}" in out
    for name in ("model server", "gateway"):
        assert f"The {name} was killed by SIGKILL; it starts again in 1 s." in err
    assert "Traceback" not in err
    assert "absl" not in err
    assert pids_with_ports(ports) == []
    assert re.search(r"^\d\d:\d\d:\d\d INFO POST /v1/predict 200 request_id=.* ms=.*$", err, re.MULTILINE)


def _is_replaced(killed: int, supervisor: int, ports: Ports, command: bytes) -> bool:
    """Whether the supervisor has another child of the command: workers of the killed one still answer."""
    found = parents_with_ports(ports, command)
    return any(parent == supervisor and pid != killed for pid, parent in found.items())


def test_up_ctrl_c_during_publication_leaves_the_folder_empty(tmp_path: Path, ports: Ports) -> None:
    with started(tmp_path, ports) as process:
        # The folder of a model comes after TensorFlow's import.
        wait_until(lambda: any(tmp_path.glob(".publishing-*/digits")), process)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert out == f"{tmp_path} is empty: publishing the networks that come with digits ...\n"
    assert (process.returncode, err) == (130, "Stopped.\n")
    assert [path.name for path in tmp_path.iterdir()] == [".models.lock"]
    assert pids_with_ports(ports) == []


@pytest.mark.original
def test_up_empty_answers_once_a_model_is_published(
    models: Path, ports: Ports, digits: Any, tmp_path: Path
) -> None:
    root = tmp_path / "models"
    with started(root, ports, "--empty") as process:
        wait_until(lambda: answers(f"{ports.url}/livez"), process)
        assert not ModelsFolder(root).names()
        publish(root, models / "1")
        read_start(process)
        assert answering(ports, digits) == 1


def test_up_model_server_that_can_not_start_ends_with_the_reason(
    models: Path, ports: Ports, tmp_path: Path
) -> None:
    program = tmp_path / "tensorflow_model_server"
    program.write_text("#!/bin/sh\nexit 3")
    program.chmod(0o755)
    with started(models.parent, ports, PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}") as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "model server ended with status 3" in err


@pytest.mark.original
def test_up_starts_without_damaged_versions_and_other_commands_find_it(
    two_versions: Path, ports: Ports, digits: Any
) -> None:
    third = publish(two_versions, two_versions / "digits" / "1").version("digits", 3)
    with serving(two_versions, ports):
        os.truncate(third.path / "variables" / "variables.data-00000-of-00001", 100)
        os.kill(parent_with_ports(ports, b"model-server"), signal.SIGKILL)
        environment = {**os.environ, "DIGITS_MODELS": str(two_versions)}
        for name in ("DIGITS_MODEL_SERVER", "DIGITS_URL"):
            environment.pop(name, None)
        ls = [*DIGITS, "models", "ls", "--json"]

        def states() -> list[str | None]:
            listed = json.loads(subprocess.check_output(ls, env=environment))
            return [version["state"] for version in listed["versions"]]

        wait_until(lambda: states() == ["damaged", "AVAILABLE", "AVAILABLE"])
        assert answering(ports, digits) == 1


def test_up_version_that_ends_the_model_server_late_is_left_out(
    two_versions: Path, ports: Ports, digits: Any, tmp_path: Path
) -> None:
    broken = two_versions / "digits" / "2"
    # Stands in for TensorFlow Serving, which ends with status 255, but late.
    program = tmp_path / "tensorflow_model_server"
    program.write_text(f"""#!/bin/sh
for each; do case $each in --model_config_file=*) file=${{each#*=}};; esac; done
grep -q "versions: 2" "$file" && grep -q none {broken}/saved_model.pb && sleep 3 && exit 255
exec {" ".join(DIGITS)} model-server "$@"
""")
    program.chmod(0o755)
    with started(two_versions, ports, PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}") as process:
        read_start(process)
        (broken / "saved_model.pb").write_text("none")
        (broken / "assets.extra" / "SHA256SUMS").unlink()
        os.kill(parent_with_ports(ports, b"model-server"), signal.SIGKILL)
        wait_until(lambda: not is_ready(ports.url), process)
        wait_until(lambda: is_ready(ports.url), process, 90)
        assert answering(ports, digits) == 1
        assert ModelsFolder(two_versions).read_config().listed("digits") == {1}
        process.terminate()
        _, err = process.communicate(timeout=20)
    assert "The model server ended with status 255; it starts again in 2 s." in err


def publish(root: Path, *versions: Path) -> ModelsFolder:
    """Publish copies of these versions of the digits, without a verification."""
    folder = ModelsFolder(root, verify=lambda _: None)
    for version in versions:
        folder.publish("digits", partial(shutil.copytree, version, dirs_exist_ok=True))
    return folder


@pytest.fixture
def two_versions(models: Path, tmp_path: Path) -> Path:
    """Models folder with two versions of the digits, of which the first is stable."""
    return publish(tmp_path / "models", models / "1", models / "1").root


def answering(ports: Ports, digits: Any, **query: int | str) -> int | None:
    """Return the version that answers a picture, None if the gateway refuses the request."""
    response = httpx.post(
        f"{ports.url}/v1/predict",
        params=query,
        content=to_png(digits.one(7)),
        headers={"content-type": "image/png"},
        timeout=20,
    )
    return response.json()["model"]["version"] if response.status_code == 200 else None


def change(root: Path, ports: Ports, *arguments: str) -> None:
    command = [*DIGITS, "models", *arguments, "--models", str(root)]
    subprocess.run(command, env=os.environ | ports.environment, check=True)


@pytest.mark.original
def test_up_serves_what_is_promoted_across_restarts(two_versions: Path, ports: Ports, digits: Any) -> None:
    with serving(two_versions, ports):
        assert answering(ports, digits) == 1
        wait_until(lambda: answering(ports, digits, version=2) == 2, seconds=20)
        folder = publish(two_versions, two_versions / "digits" / "1")
        wait_until(lambda: answering(ports, digits, version=3) == 3, seconds=20)
        assert answering(ports, digits) == 1
        change(two_versions, ports, "promote", "2")
        assert answering(ports, digits) == 2
    moved = folder.root.rename(folder.root.with_name("moved"))
    with serving(moved, ports):
        assert answering(ports, digits) == 2
        change(moved, ports, "rollback")
        assert answering(ports, digits) == 1
        assert {answering(ports, digits, version=number) for number in (1, 2, 3)} == {1, 2, 3}


@pytest.mark.original
def test_up_kills_never_let_a_model_that_models_config_names_be_not_found(
    models: Path, tmp_path: Path, ports: Ports
) -> None:
    folder = publish(tmp_path / "models", models / "1")
    save_classifier(tmp_path / "colors", COLORS)
    copy = partial(shutil.copytree, tmp_path / "colors", dirs_exist_ok=True)
    names = cycle(("early", "late", "removed", "never"))
    picture = to_png(np.full(COLORS.shape, 255, np.uint8))

    def ask() -> tuple[str, float, int, str | None, str | None]:
        """Return the model, the time, the status, its Retry-After, and the label that was answered."""
        name, started = next(names), time.monotonic()
        try:
            url = f"{ports.url}/v1/predict?model={name}"
            answer = httpx.post(url, content=picture, headers={"content-type": "image/png"}, timeout=20)
        except httpx.HTTPError:
            return name, started, 0, None, None
        label = answer.json()["predictions"][0]["label"] if answer.status_code == 200 else None
        return name, started, answer.status_code, answer.headers.get("retry-after"), label

    def statuses(name: str, since: float = 0.0, until: float = math.inf) -> set[int]:
        return {each[2] for each in outcomes if each[0] == name and since <= each[1] <= until}

    def kill(*services: bytes) -> float:
        """Kill the processes that serve, and return the time at which all models answer again."""
        for service in services:
            os.kill(parent_with_ports(ports, service), signal.SIGKILL)
        killed = time.monotonic()
        wait_until(lambda: not statuses("early", killed) <= {200}, seconds=20)
        down = time.monotonic()
        wait_until(lambda: all(200 in statuses(name, down) for name in served))
        return time.monotonic()

    for name in ("early", "removed"):
        folder.publish(name, copy)
    with ports.up(folder.root), load(ask, 8) as outcomes:
        answering, served = time.monotonic(), ["early", "removed"]
        kill(b"model-server")
        folder.publish("late", copy)
        published, served = time.monotonic(), ["early", "late", "removed"]
        kill(b"gateway")
        kill(b"model-server")
        before = time.monotonic()
        change(folder.root, ports, "remove", "removed", "--yes")
        removed, served = time.monotonic(), ["early", "late"]
        kill(b"model-server", b"gateway")
        recovered = kill(b"model-server")
        time.sleep(1)
    # 0: the connection broke, as a gateway was killed.
    assert statuses("early", answering) == statuses("late", published) == {200, 503, 0}
    assert statuses("removed", answering, before) == {200, 503, 0}
    assert statuses("removed", removed) <= {404, 503, 0}
    assert statuses("removed", recovered) == statuses("never", recovered) == {404}
    assert {each[3] for each in outcomes if each[2] == 503} == {"1"}
    assert len({each[4] for each in outcomes if each[2] == 200}) == 1


@pytest.mark.original
def test_up_missing_stable_version_is_reported_and_replaceable(
    two_versions: Path, ports: Ports, digits: Any
) -> None:
    shutil.rmtree(two_versions / "digits" / "1")
    with started(two_versions, ports) as process:
        assert process.stdout
        assert "label stable needs another version: `digits models promote N" in process.stdout.readline()
        assert any("Not ready yet: No loaded version of the model" in line for line in process.stdout)
        change(two_versions, ports, "promote", "2")
        wait_until(lambda: is_ready(ports.url), process)
        assert answering(ports, digits) == 2
