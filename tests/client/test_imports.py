"""What an import costs: these run in processes of their own, since pytest has everything imported."""

import re
import subprocess
import sys
from importlib.metadata import entry_points, metadata

import pytest
from click.testing import CliRunner

import digit_client
from digit_client import _cli
from digit_client._cli import main

HEAVY = ("tensorflow", "tensorflow_serving", "keras", "flask", "grpc", "cv2", "opentelemetry")


def _imported_by(code: str) -> set[str]:
    check = f"{code}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    return set(
        subprocess.run(
            [sys.executable, "-c", check], check=True, capture_output=True, text=True
        ).stdout.split()
    )


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import digit_client", set()),
        ("from digit_client import DigitClient, AsyncDigitClient", set()),
        ("import digit_client._cli", set()),
        ("import digit_client.tfserving.protos", set()),
        ("from digit_client import ModelServerClient", {"grpc", "cv2"}),
        ("import digit_serving.gateway.server", {"grpc"}),
        ("import digit_serving.gateway.app", {"grpc", "cv2", "flask"}),
        ("import digit_serving.up, digit_serving.gateway.cli, digit_serving.model_server.cli", set()),
        ("import digit_serving.releases.cli, digit_serving.up", set()),
        ("import digit_training.cli", set()),
    ],
)
def test_imports_bring_no_more_than_they_need(code: str, allowed: set[str]) -> None:
    assert _imported_by(code) == allowed


EXTRAS = (*HEAVY, "google", "greenlet", "matplotlib", "PIL", "pydantic", "rich", "uvicorn", "uvloop")
# None in sys.modules makes a module unimportable.
DIGITS_WITHOUT_EXTRAS = (
    f"import sys; sys.modules.update(dict.fromkeys({EXTRAS!r})); from digit_client._cli import main; main()"
)


def _digits_without_extras(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", DIGITS_WITHOUT_EXTRAS, *arguments], capture_output=True, text=True, check=False
    )


def test_help_needs_no_extra() -> None:
    done = _digits_without_extras("--help")
    assert done.returncode == 0
    assert "predict" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "extras"),
    [
        (("export", "model.keras"), "training"),
        (("gateway",), "gateway"),
        (("model-server",), "model-server"),
        (("models", "ls"), "grpc"),
        (("train",), "training"),
        (("up",), "gateway,model-server"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_command_without_its_extra_names_the_installation(arguments: tuple[str, ...], extras: str) -> None:
    done = _digits_without_extras(*arguments)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(
        rf"Error: `digits {arguments[0]}` needs the module [\w.]+; "
        rf"install it in a clone of digit-serving: pip install '\.\[{extras}\]'",
        line,
    )


def test_gateway_without_pydantic_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    result = CliRunner().invoke(main, ["gateway"])
    assert result.exit_code == 1
    assert "`digits gateway` needs the module pydantic" in result.output


def test_commands_that_need_extras_name_them() -> None:
    commands = {entry.name for entry in entry_points(group="digits.commands")}
    assert commands - {"keys", "predict"} == _cli._EXTRAS.keys()
    known = {each.lower() for each in metadata("digit-serving").get_all("Provides-Extra") or ()}
    assert {extra for extras in _cli._EXTRAS.values() for extra in extras.split(",")} <= known


def test_every_public_name_is_there() -> None:
    assert digit_client.__all__ == sorted(digit_client.__all__)
    for name in digit_client.__all__:
        assert getattr(digit_client, name).__name__ == name
    with pytest.raises(AttributeError, match="nonsense"):
        digit_client.nonsense  # noqa: B018
