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


def truncate_weights(version: Path) -> None:
    (weights,) = (version / "variables").glob("variables.data-*")
    os.truncate(weights, weights.stat().st_size // 2)


def call_python(version: Path) -> None:
    """Replace the graph by one that calls a Python function of this process."""
    pixels = tf.TensorSpec(None, tf.float32)
    answer = tf.function(
        lambda pixels: tf.py_function(lambda _: 0.0, [pixels], tf.float32), input_signature=[pixels]
    )
    tf.saved_model.save(tf.Module(), str(version), signatures=answer)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        pytest.param(truncate_weights, "", id="truncated weights"),
        pytest.param(call_python, "it calls Python code", id="Python function", marks=pytest.mark.slow),
        pytest.param(
            lambda version: shutil.rmtree(version / "variables"),
            "Failed to find any matching files",
            id="half copied",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda version: (version / "assets.extra" / "tf_serving_warmup_requests").unlink(),
            "warmup_requests",
            id="no warm-up requests",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda version: (version / "saved_model.pb").write_bytes(b"no protobuf"),
            "Cannot parse file",
            id="damaged graph",
            marks=pytest.mark.slow,
        ),
    ],
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


def test_verify_version_that_takes_too_long_raises(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "_SECONDS", 0.1)
    with pytest.raises(ArtifactError, match=r"can't be served: no answer within 0\.1 s"):
        verify(models / "1")
