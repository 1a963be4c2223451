"""Import cost, optional extras and public names of the packages, checked in fresh interpreters."""

import json
import subprocess
import sys
from importlib.metadata import entry_points, metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

import digit_client
from digit_client import _cli, _commands
from digit_core.artifact.models_folder import ModelsFolder

HEAVY = (
    *("tensorflow", "tensorflow_serving", "keras", "flask", "grpc", "cv2", "opentelemetry", "pyarrow"),
    *("ray", "sqlalchemy"),
)
EXTRAS = (
    *(*HEAVY, "fsspec", "google", "greenlet", "matplotlib", "PIL", "pydantic", "rich", "uvicorn"),
    *("uvloop", "waitress"),
)

IMPORTS: tuple[tuple[str, set[str]], ...] = (
    ("import digit_client", set()),
    ("import digit_client._cli", set()),
    ("from digit_client import AsyncClient, Client", {"httpx", "numpy"}),
    ("import digit_core.tfserving.protos", set()),
    ("import digit_training.cli", set()),
    ("import digit_serving.gateway.cli, digit_serving.model_server.cli", set()),
    ("import digit_serving.feedback.cli, digit_serving.scoring.cli", set()),
    ("import digit_serving.releases.cli, digit_serving.up", set()),
    ("import digit_serving.gateway.server", {"grpc"}),
    ("from digit_client import ModelServerClient", {"cv2"}),
    ("import digit_serving.gateway.app", {"flask"}),
    # Ray is imported with --ray only.
    ("import digit_serving.scoring.job", {"pyarrow"}),
)
"""Statements for one interpreter, in this order, and the measured modules that each may add."""

COMMANDS_AND_EXTRAS = {
    ("export", "model.keras"): "training",
    ("feedback", "stats", "--store", "sqlite:///feedback.db"): "feedback",
    ("gateway",): "gateway",
    ("keys", "add", "shop", "--file", "keys"): "gateway",
    ("model-server",): "model-server",
    ("models", "ls"): "grpc",
    ("read", __file__, "--show", "shown.png"): "images",
    ("score", "photos", "--output", "results"): "score",
    ("train",): "training",
    ("up",): "serve",
}

MEASURE_IMPORTS = """
import json, sys
statements, measured = map(json.loads, sys.argv[1:])
loaded = []
for statement in statements:
    before = set(sys.modules)
    exec(statement, {})
    loaded.append([name for name in measured if name in sys.modules and name not in before])
print(json.dumps(loaded))
"""

# None in sys.modules makes a module unimportable.
RUN_WITHOUT_MODULES = """
import json, sys
commands, blocked = map(json.loads, sys.argv[1:])
sys.modules.update(dict.fromkeys(blocked))
from click.testing import CliRunner
from digit_client._cli import main
results = [CliRunner().invoke(main, command, prog_name="digits") for command in commands]
print(json.dumps([[result.exit_code, result.stdout, result.stderr] for result in results]))
"""


def run_in_fresh_interpreter(code: str, *arguments: object) -> Any:
    command = [sys.executable, "-c", code, *map(json.dumps, arguments)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def test_import_adds_only_allowed_modules() -> None:
    statements = [statement for statement, _ in IMPORTS]
    loaded = run_in_fresh_interpreter(MEASURE_IMPORTS, statements, [*HEAVY, "numpy", "httpx"])
    assert dict(zip(statements, map(set, loaded), strict=True)) == dict(IMPORTS)


def test_commands_without_their_extras_are_not_listed_and_name_what_to_install() -> None:
    commands = [("--help",), *COMMANDS_AND_EXTRAS]
    (status, stdout, _), *results = run_in_fresh_interpreter(RUN_WITHOUT_MODULES, commands, EXTRAS)
    assert status == 0
    listed, others = stdout.partition("Commands:\n")[2].split("\n\n")
    assert [line.split()[0] for line in listed.splitlines()] == ["predict", "read"]
    assert " ".join(others.split()) == (
        "Commands that need an extra: export (training), feedback (feedback), gateway (gateway), "
        "keys (gateway), model-server (model-server), models (grpc), score (score), train (training), "
        "up (serve)."
    )
    for ((name, *_), extra), (status, _, stderr) in zip(COMMANDS_AND_EXTRAS.items(), results, strict=True):
        assert (status, stderr) == (
            1,
            f"Error: `digits {name}` needs digits[{extra}]; "
            f"install it: pip install 'digits[{extra}]', or '.[{extra}]' in a clone\n",
        )


def test_models_commands_run_without_opencv_pillow_and_httpx(tmp_path: Path) -> None:
    folder = ModelsFolder(tmp_path, verify=lambda _: None)
    for _ in range(2):
        folder.publish("digits", lambda version: (version / "saved_model.pb").touch())
    commands = (["promote", "2", "--offline"], ["rollback", "--offline"], ["ls"])
    results = run_in_fresh_interpreter(
        RUN_WITHOUT_MODULES,
        [["models", *command, "--models", str(tmp_path)] for command in commands],
        ["cv2", "PIL", "httpx"],
    )
    assert [status for status, _, _ in results] == [0, 0, 0], results


def test_library_without_extras_lists_what_can_be_imported_and_names_install_commands() -> None:
    code = """
import inspect, json, pydoc, sys
sys.modules.update(dict.fromkeys(json.loads(sys.argv[1])))
import digit_client
from digit_client import *
pydoc.render_doc(digit_client)
messages = []
for name in ("ModelServerClient", "AsyncModelServerClient", "images", "draw", "to_arrow"):
    try:
        exec(f"from digit_client import {name}")
    except ImportError as error:
        messages.append(str(error))
print(json.dumps([[name for name, _ in inspect.getmembers(digit_client)], messages]))
"""
    names, messages = run_in_fresh_interpreter(code, EXTRAS)
    missing = {"AsyncModelServerClient", "ModelServerClient", "draw", "to_arrow"}
    assert {*digit_client.__all__} - {*names} == missing
    assert [message.partition(" needs ")[2] for message in messages] == [
        f"digits[{extra}]; install it: pip install 'digits[{extra}]', or '.[{extra}]' in a clone"
        for extra in ("grpc", "grpc", "images", "images", "arrow")
    ]


def test_help_with_all_extras_lists_all_commands_whose_extras_exist() -> None:
    commands = {entry.name for entry in entry_points(group="digits.commands")}
    assert commands - {"predict"} == _commands.REQUIRED_EXTRAS.keys()
    listed = CliRunner().invoke(_cli.main, "--help").stdout.partition("Commands:\n")[2].splitlines()
    assert {line.split()[0] for line in listed if line.startswith("  ") and line[2] != " "} == commands
    known = {extra.lower() for extra in metadata("digits").get_all("Provides-Extra") or ()}
    assert {*_commands.REQUIRED_EXTRAS.values()} <= known


def test_all_lists_every_public_name() -> None:
    public = {
        name
        for name in dir(digit_client)
        if not name.startswith("_") and not isinstance(getattr(digit_client, name), ModuleType)
    }
    assert sorted(digit_client.__all__) == sorted(public)
    for name in public - {"DIGITS", "ImageSource"}:
        assert getattr(digit_client, name).__name__ == name
        assert getattr(digit_client, name).__doc__
    with pytest.raises(AttributeError, match="nonsense"):
        digit_client.nonsense  # type: ignore[attr-defined]  # noqa: B018
