"""What an import costs: these run in processes of their own, since pytest has everything imported."""

import subprocess
import sys

import pytest

import digit_client

HEAVY = ("tensorflow", "keras", "flask", "grpc", "cv2", "opentelemetry")


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
        ("import digit_client.cli", set()),
        ("from digit_client import ModelServerClient", {"grpc", "cv2"}),
        ("import digit_serving.gateway.server", set()),
        ("import digit_serving.gateway.app", {"grpc", "cv2", "flask"}),
        ("import digit_serving.cli, digit_serving.gateway.cli, digit_serving.model_server.cli", set()),
        ("import digit_serving.releases.cli, digit_serving.stack", set()),
        ("import digit_training.cli", set()),
    ],
)
def test_imports_bring_no_more_than_they_need(code: str, allowed: set[str]) -> None:
    assert _imported_by(code) == allowed


def test_the_command_works_without_any_extra() -> None:
    """What is None in sys.modules can't be imported."""
    extras = (*HEAVY, "greenlet", "matplotlib", "PIL", "pydantic", "rich", "uvicorn", "uvloop")
    missing = f"import sys; sys.modules.update(dict.fromkeys({extras!r}))"
    code = f"{missing}; from digit_client.cli import main; main()"
    done = {
        arguments: subprocess.run(
            [sys.executable, "-c", code, arguments], capture_output=True, text=True, check=False
        )
        for arguments in ("--help", "train", "gateway")
    }
    assert done["--help"].returncode == 0
    assert "predict" in done["--help"].stdout
    for command in ("train", "gateway"):
        assert done[command].returncode == 1
        assert "pip install 'digit-serving[" in done[command].stderr


def test_tensorflow_can_be_imported_after_its_protocol() -> None:
    code = "import digit_client.protos, tensorflow as tf; assert tf.constant(1).numpy() == 1"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_protocol_can_be_imported_after_tensorflow() -> None:
    code = "import tensorflow as tf; import digit_client.protos; assert tf.constant(1).numpy() == 1"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_every_public_name_is_there() -> None:
    assert digit_client.__all__ == sorted(digit_client.__all__)
    for name in digit_client.__all__:
        assert getattr(digit_client, name).__name__ == name
    with pytest.raises(AttributeError, match="nonsense"):
        digit_client.nonsense  # noqa: B018
