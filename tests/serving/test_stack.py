"""Stack of `digits up`: the folder, the model server, and its log."""

import os
import re
import shutil
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from werkzeug import Response

from digit_core.artifact.models_config import ModelsConfig
from digit_core.artifact.models_folder import ModelsFolder
from digit_serving import stack
from digit_serving.errors import DigitServingError
from digit_serving.processes import ProcessGroup
from digit_serving.releases.cli import models
from digit_serving.stack import (
    ServedConfig,
    choose_default,
    find_model_server,
    prepared,
    publish_shipped,
    readiness,
    start_model_server,
)
from tests.client.faulty_server import FaultyServer
from tests.core.artifact.folders import require_variables, write_files
from tests.processes import free_port, wait_until


def publish(root: Path, *names: str) -> ModelsFolder:
    """Publish a version of each model, which is not verified."""
    folder = ModelsFolder(root, verify=lambda _: None)
    for name in names:
        folder.publish(name, write_files)
    return folder


def default_name(root: Path) -> str:
    with prepared(root, print) as folder:
        return choose_default(folder, print)


@pytest.fixture(autouse=True)
def no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIGITS_MODEL_NAME", raising=False)


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Function that lets a line of shell take the place of `digits train --if-needed`."""

    def replace(line: str) -> None:
        monkeypatch.setattr(stack, "python_command", lambda *arguments: ["sh", "-c", line, *arguments])

    return replace


def entries(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.name != ".models.lock")


@pytest.mark.parametrize("hidden", ["", ".gitkeep", ".publishing-killed/digits"])
def test_publish_shipped_fills_an_empty_folder_once(
    training: Callable[[str], None], tmp_path: Path, hidden: str
) -> None:
    training('mkdir "$DIGITS_MODELS/digits" && echo "$@" > "$DIGITS_MODELS/models.config" && echo Published')
    (tmp_path / "models" / hidden).mkdir(parents=True)
    reported: list[str] = []
    for _ in range(2):
        publish_shipped(tmp_path / "models", reported.append)
    assert reported == [f"{tmp_path / 'models'} is empty: publishing the networks that come with digits ..."]
    kept = [hidden] if hidden == ".gitkeep" else []
    assert entries(tmp_path / "models") == [*kept, "digits", "models.config"]
    assert (tmp_path / "models" / "models.config").read_text() == "--if-needed\n"


def test_publish_shipped_leaves_a_folder_with_a_file_alone(
    training: Callable[[str], None], tmp_path: Path
) -> None:
    training("exit 1")
    (tmp_path / "notes.txt").touch()
    publish_shipped(tmp_path, pytest.fail)
    assert entries(tmp_path) == ["notes.txt"]


def test_publish_shipped_that_fails_leaves_the_folder_empty(
    training: Callable[[str], None], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    training('mkdir "$DIGITS_MODELS/digits"; echo "Error: reason" >&2; exit 3')
    with pytest.raises(DigitServingError, match="publication ended with status 3"):
        publish_shipped(tmp_path, print)
    assert "Error: reason\n" in capfd.readouterr().err
    assert entries(tmp_path) == []


def test_default_is_chosen_once(tmp_path: Path) -> None:
    publish(tmp_path, "flowers", "colors")
    assert default_name(tmp_path) == "colors"
    publish(tmp_path, "alpha", "digits")
    assert default_name(tmp_path) == "colors"
    result = CliRunner().invoke(models, ["default", "flowers", "--models", str(tmp_path)])
    assert result.stdout == "flowers is the default, from the next start of `digits up`.\n"
    assert default_name(tmp_path) == "flowers"
    shutil.rmtree(tmp_path / "flowers")
    assert default_name(tmp_path) == "digits"


def test_default_of_models_without_digits_is_that_of_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path, "flowers", "colors")
    monkeypatch.setenv("DIGITS_MODEL_NAME", "flowers")
    assert default_name(tmp_path) == "flowers"
    shutil.rmtree(tmp_path / "flowers")
    with pytest.raises(DigitServingError, match="DIGITS_MODEL_NAME is flowers, but there are only colors"):
        default_name(tmp_path)


def test_prepared_folder_without_model_or_complete_version_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "ModelsFolder", partial(ModelsFolder, verify=require_variables))
    with pytest.raises(DigitServingError, match="has no model; create one with `digits train`"):
        default_name(tmp_path / "none")
    publish(tmp_path, "digits")
    shutil.rmtree(tmp_path / "digits" / "1" / "variables")
    with pytest.raises(DigitServingError, match=r"no version in .* can be served"):
        default_name(tmp_path)


def test_prepared_read_only_folder_is_a_corrected_copy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "moved"
    publish(tmp_path / "models", "digits", "colors").root.rename(root)
    (root / ".models.lock").unlink()
    # A folder in place of the lock file makes the lock fail even for root, who may write to any folder.
    (root / ".models.lock").mkdir()
    before = (root / "models.config").read_text()
    with prepared(root, print) as folder:
        config = folder.read_config()
        assert {name: path.resolve() for name, path in config.base_paths.items()} == {
            "colors": root / "colors",
            "digits": root / "digits",
        }
        assert config.labels("digits") == {"stable": 1}
    assert (root / "models.config").read_text() == before
    assert "can't be changed" in capsys.readouterr().out
    assert not folder.root.exists()


def test_served_config_names_the_default_and_the_reader_until_the_model_server_listens(
    tmp_path: Path,
) -> None:
    folder, port = publish(tmp_path / "models", "flowers", "digits", "colors", "reader"), free_port()
    served = ServedConfig(folder, "digits", tmp_path / "models.config", port)
    assert served.path.exists(), "the model server starts with it"

    def names() -> set[str]:
        served.update()
        return {*ModelsConfig.parse(served.path.read_text()).base_paths}

    assert names() == {"digits", "reader"}
    with socket.create_server(("127.0.0.1", port)):
        assert names() == {"colors", "digits", "flowers", "reader"}
        text = folder.config_path.read_text()
        assert served.path.read_text() == text
    with folder.lock():
        folder.write_config(folder.read_config().without("flowers"))
    assert names() == {"colors", "digits", "reader"}
    folder.config_path.unlink()
    assert names() == {"colors", "digits", "reader"}
    folder.config_path.write_text(text)
    served.restart(has_failed=False)
    assert names() == {"digits", "reader"}


def test_default_is_entered_first_and_alone(tmp_path: Path) -> None:
    folder = publish(tmp_path, "flowers", "digits", "colors")
    folder.config_path.unlink()
    assert choose_default(folder, print) == "digits"
    assert {*folder.read_config().base_paths} == {"digits"}


def test_readiness_needs_a_gateway_and_tells_a_lasting_reason_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "_REASON_SECONDS", 0.0)
    reasons: list[str] = []
    assert not readiness(f"http://127.0.0.1:{free_port()}", reasons.append)()
    with FaultyServer() as server:
        is_ready = readiness(server.url, reasons.append)
        server.responses = [lambda: Response('{"detail": "No model."}', 503)]
        assert [is_ready() for _ in range(4)] == [False] * 4
        assert reasons == ["Not ready yet: No model."]
        server.responses = [lambda: Response("<html>", 502)]
        assert not is_ready()
        server.responses = [lambda: Response("ready")]
        assert is_ready()


def test_find_model_server_with_public_key_is_the_drop_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = tmp_path / "tensorflow_model_server"
    original.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("DIGITS_MODEL_PUBLIC_KEY", raising=False)
    assert find_model_server() == ("TensorFlow Serving", [str(original)])
    monkeypatch.setenv("DIGITS_MODEL_PUBLIC_KEY", "public.pem")
    name, command = find_model_server()
    assert name == "drop-in for TensorFlow Serving"
    assert "model-server" in command


@pytest.mark.parametrize(("level", "shown"), [("", "WEF"), ("info", "IIWEF")])
def test_lines_of_tensorflow_serving_below_the_level_are_left_out(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    level: str,
    shown: str,
) -> None:
    lines = [
        "2026-12-01 10:00:00.123456: I tensorflow_serving/server_core.cc:486] I: finished updating models",
        "I0000 00:00:1764583200.123456    1234 server_core.cc:486] I: of Abseil",
        "2026-12-01 10:00:00.123456: W tensorflow_serving/server_core.cc:486] W: warning",
        "2026-12-01 10:00:00.123456: E tensorflow_serving/server_core.cc:486] E: error",
        "F: Failed to start server. Error: INVALID_ARGUMENT",
    ]
    original = tmp_path / "tensorflow_model_server"
    original.write_text("#!/bin/sh\ncat <<'EOF' >&2\n" + "\n".join(lines) + "\nEOF\nexec sleep 60\n")
    original.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DIGITS_LOG_LEVEL", level)
    printed = ""
    with ProcessGroup() as group:
        start_model_server(group, "--port=1")

        def is_printed() -> bool:
            nonlocal printed
            printed += capfd.readouterr().err
            return "F: " in printed

        wait_until(is_printed)
    assert "".join(re.findall(r"(?:^|\] )([IWEF]): ", printed, re.MULTILINE)) == shown
