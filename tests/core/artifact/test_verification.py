"""Verification by TensorFlow in a process of its own; the fixture `models` publishes what passes it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf

from digit_core.artifact import verification
from digit_core.artifact.verification import verify
from digit_core.artifact.versions import ArtifactError

WARMUP = "tf_serving_warmup_requests"


def call_python(version: Path) -> None:
    """Replace the graph by one that calls a Python function of this process."""
    pixels = tf.TensorSpec(None, tf.float32)
    answer = tf.function(
        lambda pixels: tf.py_function(lambda _: 0.0, [pixels], tf.float32), input_signature=[pixels]
    )
    tf.saved_model.save(tf.Module(), str(version), signatures=answer)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda version: os.truncate(next((version / "variables").glob("variables.data-*")), 1000), ""),
        (call_python, "it calls Python code"),
        (lambda version: shutil.rmtree(version / "variables"), "Failed to find any matching files"),
        (lambda version: (version / "assets.extra" / WARMUP).unlink(), "warmup_requests"),
        (lambda version: (version / "saved_model.pb").write_bytes(b"no protobuf"), "Cannot parse file"),
    ],
    ids=["truncated weights", "Python function", "half copied", "no warm-up requests", "damaged graph"],
)
def test_verify_damaged_version_tells_the_reason(
    models: Path, tmp_path: Path, damage: Callable[[Path], object], reason: str
) -> None:
    version = shutil.copytree(models / "1", tmp_path / "1")
    damage(version)
    with pytest.raises(ArtifactError, match=rf"^{version} can't be served: .*{reason}"):
        verify(version)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("ImportError('No module')", r"can't be verified without TensorFlow .*'\.\[training\]'"),
        ("ValueError('damaged')", r"can't be served: damaged$"),
    ],
)
def test_verify_error_of_tensorflow_is_told_and_without_it_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str, message: str
) -> None:
    (tmp_path / "tensorflow.py").write_text(f"raise {error}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(ArtifactError, match=message):
        verify(tmp_path / "1")


def test_verify_version_that_takes_too_long_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "_SECONDS", 0.1)
    with pytest.raises(ArtifactError, match=r"can't be served: it did not answer within 0\.1 s"):
        verify(tmp_path)
