"""Models of `digits up`, without processes."""

import json
from pathlib import Path

import pytest

from digit_client import TaskCard
from digit_serving.up import CannotStartError, Stack, find_model_server


def stack(root: Path) -> Stack:
    return Stack.of_folder(root, "127.0.0.1", 1, 2, 3)


def publish(folder: Path, name: str) -> None:
    """Write a version whose model card names the model."""
    extra = folder / "1" / "assets.extra"
    extra.mkdir(parents=True)
    task = TaskCard(name, ("left", "right"), (8, 6), (0.0, 1.0))
    (extra / "model.json").write_text(json.dumps({"task": task.to_document()}))


@pytest.fixture(autouse=True)
def no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIGITS_MODEL_NAME", raising=False)


def test_of_folder_default_is_named_model_or_digits_or_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("flowers", "colors"):
        publish(tmp_path / f"folder-of-{name}", name)
    found = stack(tmp_path)
    assert found.models == {name: tmp_path / f"folder-of-{name}" for name in ("colors", "flowers")}
    assert found.default_name == "colors"
    publish(tmp_path / "digits", "digits")
    assert stack(tmp_path).default_name == "digits"
    monkeypatch.setenv("DIGITS_MODEL_NAME", "flowers")
    assert stack(tmp_path).default_name == "flowers"
    with pytest.raises(CannotStartError, match=r"DIGITS_MODEL_NAME is flowers, but .* has colors"):
        stack(tmp_path / "folder-of-colors")


def test_of_folder_without_model_raises(tmp_path: Path) -> None:
    with pytest.raises(CannotStartError, match="has no model; create one with `digits train`"):
        stack(tmp_path / "none")


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
