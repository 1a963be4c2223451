"""Verification by TensorFlow in a process of its own."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from digit_core.artifact.verification import verify
from digit_core.artifact.versions import ArtifactError


def truncate_weights(version: Path) -> None:
    (weights,) = (version / "variables").glob("variables.data-*")
    os.truncate(weights, weights.stat().st_size // 2)


def test_verify_published_version_succeeds(models: Path) -> None:
    verify(models / "1")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda version: shutil.rmtree(version / "variables"), "Failed to find any matching files"),
        (truncate_weights, ""),
        (
            lambda version: (version / "assets.extra" / "tf_serving_warmup_requests").unlink(),
            "warmup_requests",
        ),
        (lambda version: (version / "saved_model.pb").write_bytes(b"no protobuf"), "Cannot parse file"),
    ],
    ids=["half copied", "truncated weights", "no warm-up requests", "damaged graph"],
)
def test_verify_damaged_version_tells_the_reason(
    models: Path, tmp_path: Path, damage: Callable[[Path], object], reason: str
) -> None:
    version = shutil.copytree(models / "1", tmp_path / "1")
    damage(version)
    with pytest.raises(ArtifactError, match=rf"^{version} can't be served: .*{reason}"):
        verify(version)


def test_verify_without_tensorflow_names_the_extra(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorflow.py").write_text("raise ImportError('No module named tensorflow')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ArtifactError, match=r"can't be verified without TensorFlow .*'\.\[training\]'"):
        verify(models / "1")
