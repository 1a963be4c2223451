"""`digits up` as a process, and `digits predict` beside it."""

import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from digit_client import ModelServerClient
from digit_client.images import to_png
from digit_serving.releases.config import ModelsConfig
from tests.processes import DIGITS, answers, free_port, wait_until


@dataclass(frozen=True)
class Ports:
    gateway: int
    grpc: int
    rest: int

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "DIGITS_PORT": str(self.gateway),
            "DIGITS_GRPC_PORT": str(self.grpc),
            "DIGITS_REST_PORT": str(self.rest),
            "DIGITS_URL": f"http://127.0.0.1:{self.gateway}",
            "PYTHONUNBUFFERED": "1",
        }


@pytest.fixture
def ports() -> Ports:
    return Ports(free_port(), free_port(), free_port())


def up(models: Path, ports: Ports, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*DIGITS, "up", "--models", str(models)],
        env=ports.environment | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_until_ready(process: subprocess.Popen[str], ports: Ports) -> None:
    end = time.monotonic() + 60
    while not answers(f"http://127.0.0.1:{ports.gateway}/readyz"):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)


def pids_that_know(ports: Ports) -> list[int]:
    """The processes that were started with these ports in their environment."""
    mark = f"DIGITS_GRPC_PORT={ports.grpc}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@contextmanager
def serving(models: Path, ports: Ports) -> Iterator[None]:
    """`digits up` until the end of the block."""
    process = up(models, ports)
    try:
        wait_until_ready(process, ports)
        yield
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.fixture(scope="module")
def running_ports(models: Path) -> Iterator[Ports]:
    ports = Ports(free_port(), free_port(), free_port())
    with serving(models, ports):
        yield ports


def test_nobody_beyond_this_machine_gets_in(running_ports: Ports) -> None:
    for port in (running_ports.gateway, running_ports.grpc, running_ports.rest):
        socket.create_connection(("127.0.0.1", port)).close()
        # What listens on every address of the machine answers here as well.
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port))


class TestPredict:
    def run(self, ports: Ports, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*DIGITS, "predict", *map(str, arguments)], env=ports.environment, capture_output=True, text=True
        )

    @pytest.fixture
    def folder(self, digits: Any, tmp_path: Path) -> Path:
        for label in range(10):
            (tmp_path / f"{label}.png").write_bytes(to_png(digits.one(label)))
        (tmp_path / "notes.txt").write_text("no image")
        return tmp_path

    def test_one_image_has_ten_bars(self, running_ports: Ports, folder: Path) -> None:
        done = self.run(running_ports, folder / "7.png")
        headline, *bars = done.stdout.splitlines()
        assert done.returncode == 0
        assert re.fullmatch(r".*7\.png: 7 \(\d+\.\d%\)", headline)
        assert [bar.split()[0] for bar in bars] == list("0123456789")

    @pytest.mark.parametrize("pattern", ["", "*.png"])
    def test_a_folder_or_pattern_has_a_line_for_each(
        self, running_ports: Ports, folder: Path, pattern: str
    ) -> None:
        done = self.run(running_ports, folder / pattern)
        rows = [line.split() for line in done.stdout.splitlines()]
        assert len(rows) == 10
        assert sum(Path(row[-1]).stem == row[0] for row in rows) >= 9

    def test_programs_get_json(self, running_ports: Ports, folder: Path) -> None:
        done = self.run(running_ports, "--json", folder / "3.png", folder / "4.png")
        documents = [json.loads(line) for line in done.stdout.splitlines()]
        assert [Path(document["image"]).name for document in documents] == ["3.png", "4.png"]
        assert all(len(document["probabilities"]) == 10 for document in documents)

    def test_what_can_not_be_read_is_told_and_the_rest_read(self, running_ports: Ports, folder: Path) -> None:
        done = self.run(running_ports, folder / "notes.txt", folder / "3.png")
        assert done.returncode == 1
        assert "notes.txt" in done.stderr
        assert "3.png" in done.stdout

    def test_wrong_usage_ends_with_two(self, running_ports: Ports) -> None:
        assert self.run(running_ports, "no-such-file.png").returncode == 2
        assert self.run(running_ports).returncode == 2

    def test_no_service_ends_with_one(self, folder: Path, ports: Ports) -> None:
        done = self.run(ports, folder / "3.png")
        assert done.returncode == 1
        assert "can't reach" in done.stderr
        assert "Traceback" not in done.stderr


def listening(port: int) -> set[str]:
    """The addresses on which somebody listens on the port, as Linux writes them."""
    lines = Path("/proc/net/tcp").read_text().splitlines() + Path("/proc/net/tcp6").read_text().splitlines()
    sockets = (line.split()[1:4] for line in lines[1:] if line.split()[0] != "sl")
    return {
        local.partition(":")[0]
        for local, _, state in sockets
        if state == "0A" and local.endswith(f":{port:04X}")
    }


def test_the_gateway_listens_on_loopback_alone(running_ports: Ports) -> None:
    assert listening(running_ports.gateway) == {"0100007F"}


def test_the_model_server_can_be_asked_without_the_gateway(running_ports: Ports, digits: Any) -> None:
    with ModelServerClient(f"127.0.0.1:{running_ports.grpc}") as client:
        assert client.predict(digits.one(7)).digit == 7


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_listens_and_leaves_nothing_behind(
    models: Path, ports: Ports, number: signal.Signals
) -> None:
    process = up(models, ports)
    assert process.stdout
    out = "".join(itertools.takewhile(lambda line: "Ctrl-C" not in line, process.stdout))
    # As a terminal does: to every process in the foreground.
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    for port in (ports.gateway, ports.grpc, ports.rest):
        assert f":{port}" in out
    assert "Traceback" not in err
    assert pids_that_know(ports) == []


@pytest.mark.parametrize("environment", [{}, {"DIGITS_LOG_LEVEL": "info"}], ids=["quiet", "info"])
def test_requests_are_told_to_a_human_who_asks(
    models: Path, ports: Ports, environment: dict[str, str]
) -> None:
    process = up(models, ports, **environment)
    wait_until_ready(process, ports)
    # One of its processes is ready; the other may still be on its way.
    wait_until(lambda: answers(f"http://127.0.0.1:{ports.gateway}/v1/models"))
    process.terminate()
    _, err = process.communicate(timeout=20)
    told = re.findall(r"^\d\d:\d\d:\d\d INFO GET /v1/models 200 request_id=.* ms=.*$", err, re.MULTILINE)
    assert len(told) == len(environment)


def test_the_first_to_die_ends_the_rest(models: Path, ports: Ports) -> None:
    process = up(models, ports)
    wait_until_ready(process, ports)
    (model_server,) = [
        pid for pid in pids_that_know(ports) if b"model-server" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    os.kill(model_server, signal.SIGKILL)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "model server was killed by SIGKILL" in err
    assert pids_that_know(ports) == []


def test_a_taken_port_is_told_before_anything_starts(models: Path, ports: Ports) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", ports.rest))
        other.listen()
        started = time.monotonic()
        _, err = up(models, ports).communicate(timeout=20)
    assert f"{ports.rest} (model server, REST)" in err
    assert time.monotonic() - started < 3


@pytest.fixture
def two_versions(models: Path, tmp_path: Path) -> Path:
    for version in ("1", "2"):
        shutil.copytree(models / "1", tmp_path / "digits" / version)
    return tmp_path / "digits"


def digits_models(models: Path, ports: Ports, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**ports.environment, "DIGITS_MODEL_SERVER": f"127.0.0.1:{ports.grpc}"}
    command = [*DIGITS, "models", *arguments, "--models", str(models)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def wait_until_served(ports: Ports, version: int, labels: dict[str, int]) -> None:
    """Until this version alone is available. One of the gateway's processes may be ready before another."""

    def is_served() -> bool:
        document = httpx.get(f"http://127.0.0.1:{ports.gateway}/v1/models", timeout=20).json()
        found = [each["version"] for each in document.get("versions", []) if each["state"] == "AVAILABLE"]
        return found == [version] and document["labels"] == labels

    wait_until(is_served, seconds=20)


def test_a_promoted_version_is_served_after_a_start_elsewhere_as_well(
    two_versions: Path, ports: Ports
) -> None:
    with serving(two_versions, ports):
        wait_until_served(ports, 2, {})
        assert digits_models(two_versions, ports, "promote", "1").returncode == 0
        wait_until_served(ports, 1, {"stable": 1})
    moved = two_versions.rename(two_versions.with_name("moved"))
    with serving(moved, ports):
        wait_until_served(ports, 1, {"stable": 1})


def test_a_promoted_version_that_is_gone_is_told_and_can_be_replaced(
    two_versions: Path, ports: Ports
) -> None:
    (two_versions / "models.config").write_text(
        str(ModelsConfig.of_newest(two_versions).promoting(1, "stable").loading([1]))
    )
    shutil.rmtree(two_versions / "1")
    _, err = up(two_versions, ports).communicate(timeout=20)
    assert "wants versions that are gone: `digits models promote N --offline`" in err
    assert digits_models(two_versions, ports, "promote", "2", "--offline").returncode == 0
    with serving(two_versions, ports):
        wait_until_served(ports, 2, {"stable": 2})


def test_a_folder_that_can_not_be_written_to_is_served_as_well(two_versions: Path, ports: Ports) -> None:
    # Root, as whom this may run, may write wherever there is no folder in its way.
    (two_versions / ".models.config.lock").mkdir()
    with serving(two_versions, ports):
        wait_until_served(ports, 2, {})


def test_no_model_is_told(tmp_path: Path, ports: Ports) -> None:
    process = up(tmp_path / "none", ports)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "digits train" in err
