"""Ports of `digits up`, which are checked before it starts, and before `make run` installs anything."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from digit_serving import sockets
from digit_serving.ports import Ports
from digit_serving.up import up
from tests.processes import free_port

SERVING = Path(__file__).parents[2] / "serving"


def test_conflict_names_taken_ports_and_the_ways_to_choose_others() -> None:
    with sockets.listen("127.0.0.1", 0) as gateway, sockets.listen("127.0.0.1", 0) as rest:
        taken, other = gateway.getsockname()[1], rest.getsockname()[1]
        assert Ports("127.0.0.1", taken, free_port(), other).conflict() == (
            f"ports in use: {taken} (gateway), {other} (model server, REST); choose others with "
            "`DIGITS_PORT=PORT DIGITS_REST_PORT=PORT make run` or `digits up --port PORT --rest-port PORT`"
        )
    assert not Ports("127.0.0.1", *(free_port() for _ in range(3))).conflict()


def test_up_with_a_taken_port_starts_nothing(tmp_path: Path) -> None:
    with sockets.listen("127.0.0.1", 0) as rest:
        taken = rest.getsockname()[1]
        options = {"--port": free_port(), "--grpc-port": free_port(), "--rest-port": taken}
        words = [str(word) for option in options.items() for word in option]
        result = CliRunner().invoke(up, [*words, "--models", str(tmp_path)])
    assert (result.exit_code, f"ports in use: {taken} (model server, REST)" in result.stderr) == (1, True)


@pytest.mark.parametrize(("host", "on_every_address"), [("", True), ("127.0.0.1", False)])
def test_listen_opens_the_port_on_one_address_or_all(host: str, on_every_address: bool) -> None:
    with sockets.listen(host, 0) as listener, socket.socket() as client:
        assert (client.connect_ex(("127.0.0.2", listener.getsockname()[1])) == 0) is on_every_address


def test_module_checks_the_ports_of_the_variables_without_any_package() -> None:
    with sockets.listen("127.0.0.1", 0) as gateway:
        taken = gateway.getsockname()[1]
        ports = {"DIGITS_GRPC_PORT": str(free_port()), "DIGITS_REST_PORT": str(free_port())}
        environment = {**os.environ, **ports, "PYTHONPATH": str(SERVING), "DIGITS_PORT": str(taken)}
        # -S leaves the installed packages out.
        command = [sys.executable, "-S", "-m", "digit_serving.ports"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"ports in use: {taken} (gateway); choose others with `DIGITS_PORT=PORT")
    assert subprocess.run(command, env=environment | {"DIGITS_PORT": str(free_port())}).returncode == 0
