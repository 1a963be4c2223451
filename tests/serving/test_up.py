"""`digits up` in this process, with stand-ins for its services, which tests/e2e/operator/test_up.py has."""

import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from digit_core.artifact import addresses
from digit_core.artifact.models_folder import ModelsFolder
from digit_core.artifact.versions import ArtifactError
from digit_serving import processes, stack
from digit_serving.up import up
from tests.core.artifact.folders import write_files
from tests.processes import Ports, wait_until

StandIns = Callable[[str, str], None]
FIND_FILE = "for each; do case $each in --model_config_file=*) file=${each#*=};; esac; done"


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    """Function that lets shell scripts be the model server, whose models.config is `$file`, and the gateway.

    TensorFlow, which verifies versions, refuses number 2 alone.
    """

    def verify(version: Path) -> None:
        if version.name == "2":
            raise ArtifactError(f"{version} can't be served: broken")

    def replace(model_server: str, gateway: str) -> None:
        program = tmp_path / "tensorflow_model_server"
        program.write_text(f"#!/bin/sh\n{FIND_FILE}\n{model_server}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setattr(stack, "python_command", lambda *_: ["sh", "-c", gateway])

    for name in (
        "DIGITS_MODEL_NAME",
        "DIGITS_MODEL_NAMES",
        "DIGITS_MODEL_PUBLIC_KEY",
        "DIGITS_TLS_CERTIFICATE",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(stack, "ModelsFolder", partial(ModelsFolder, verify=verify))
    return replace


@pytest.fixture
def folder(tmp_path: Path) -> ModelsFolder:
    """Models folder with version 1 of the digits."""
    folder = ModelsFolder(tmp_path / "models", verify=lambda _: None)
    folder.publish("digits", write_files)
    return folder


def serving(files: Path) -> str:
    """Return a gateway that answers with these files."""
    server = f"-m http.server --bind 127.0.0.1 --directory {files}"
    return f"exec {sys.executable} {server} $DIGITS_PORT 2>/dev/null"


def run_up(folder: ModelsFolder, ports: Ports, *options: str) -> Result:
    return CliRunner().invoke(up, ["--models", str(folder.root), *options], env=ports.environment)


def test_up_publishes_into_an_empty_folder_unless_it_may_stay_empty(
    stand_ins: StandIns, tmp_path: Path
) -> None:
    folder = ModelsFolder(tmp_path / "models")
    stand_ins("exit 3", "exit 4")
    assert run_up(folder, Ports()).stderr == "Error: publication ended with status 4\n"
    result = run_up(folder, Ports(), "--empty")
    assert result.exit_code == 1
    assert "publication" not in result.stderr


def test_up_adopts_other_models_and_leaves_out_a_version_that_ends_the_model_server(
    folder: ModelsFolder, stand_ins: StandIns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_FIRST_PAUSE_SECONDS", 0.1)
    # A file that the gateway answers with while the model server runs.
    ready, pid, ports = tmp_path / "www" / "readyz", tmp_path / "pid", Ports()
    ready.parent.mkdir()
    serve = f"echo $$ > {pid}; touch {ready}; exec sleep 60"
    stand_ins(f"grep -q 'versions: 2' $file && exit 3; {serve}", serving(ready.parent))
    for version in ("broken/2", "colors/1"):
        write_files(folder.root / version)

    def change_and_stop() -> addresses.Addresses | None:
        try:
            wait_until(lambda: "colors" in folder.read_config().base_paths)
            folder.publish("digits", write_files)
            ready.unlink()
            os.kill(int(pid.read_text()), signal.SIGKILL)
            wait_until(ready.exists)
            return addresses.read(folder.root)
        finally:
            # Without its handler the signal would end pytest.
            if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
                os.kill(os.getpid(), signal.SIGTERM)

    with ThreadPoolExecutor() as pool:
        recorded = pool.submit(change_and_stop)
        result = run_up(folder, ports)
    assert result.exit_code == 0
    model_server = f"127.0.0.1:{ports.grpc}"
    assert recorded.result() == addresses.Addresses(ports.url, model_server, "digits")
    assert addresses.read(folder.root) is None
    for line in (
        f"Model server  {model_server}  (gRPC; TensorFlow Serving)",
        f"              http://127.0.0.1:{ports.rest}/v1/models/digits  (REST)",
        "Models        broken, colors, digits; default: digits, the others follow",
        "s. Press Ctrl-C to stop.",
        f"Open http://localhost:{ports.gateway}: draw or drop a picture",
        f"{folder.root}/broken/2 can't be served: broken",
    ):
        assert f"{line}\n" in result.stdout
    assert result.stderr.splitlines() == [
        "The model server was killed by SIGKILL; it starts again in 0.1 s.",
        "The model server ended with status 3; it starts again in 0.2 s.",
    ]
    assert folder.read_config().listed("digits") == {1}


def test_up_version_that_no_model_server_starts_with_is_left_out(
    folder: ModelsFolder, stand_ins: StandIns
) -> None:
    folder.publish("digits", write_files)
    stop = f"kill -TERM {os.getpid()}; exec sleep 60"
    stand_ins(f"grep -q 'versions: 2' $file && exit 3; {stop}", "exec sleep 60")
    result = run_up(folder, Ports())
    reason = "The model server ended with status 3; loading each version of digits to find the reason ...\n"
    assert (result.exit_code, result.stderr) == (0, reason)
    assert folder.read_config().listed("digits") == {1}


@pytest.mark.parametrize(
    ("scripts", "error"),
    [(("exit 3", "sleep 60"), "model server ended with status 3"), (("sleep 60", "exit 4"), "gateway ended")],
)
def test_up_service_that_can_not_start_ends_it(
    folder: ModelsFolder, stand_ins: StandIns, scripts: tuple[str, str], error: str
) -> None:
    stand_ins(*scripts)
    result = run_up(folder, Ports())
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(f"Error: {error}")
    assert ("loading each version" in result.stderr) is (scripts[0] == "exit 3")


def test_up_prints_and_passes_on_the_models_that_are_chosen(
    folder: ModelsFolder, stand_ins: StandIns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITS_MODEL_NAMES", "letters")
    write_files(folder.root / "colors/1")
    names = tmp_path / "names"
    (tmp_path / "readyz").touch()
    # The folder's other models are entered once the service is ready.
    stop = f"until grep -q colors {folder.config_path}; do sleep 0.1; done; kill -TERM {os.getpid()}"
    tell = f"echo $DIGITS_MODEL_NAME $DIGITS_MODEL_NAMES > {names}"
    stand_ins(f"{stop}; exec sleep 60", f"{tell}; {serving(tmp_path)}")
    result = run_up(folder, Ports())
    assert result.exit_code == 0
    assert names.read_text() == "digits letters\n"
    assert "Models        digits, letters; default: digits, the others follow\n" in result.stdout


def test_up_certificate_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITS_TLS_CERTIFICATE", "tls.crt")
    result = run_up(ModelsFolder(tmp_path / "models"), Ports())
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "Error: DIGITS_TLS_CERTIFICATE is set, but `digits up` serves without TLS"
    )
    assert not (tmp_path / "models").exists()
