"""Warm-up, and what is wrong with a SavedModel."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from digit_serving.model_server.errors import ServingError
from digit_serving.model_server.flags import parse
from digit_serving.model_server.servable import Servable, warm_up


def load(directory: Path, tags: str = "serve") -> Servable:
    return Servable(directory, 1, parse([f"--saved_model_tags={tags}"]))


def test_runs_a_model_of_tensorflow_1(saved_models: Path) -> None:
    servable = load(saved_models / "half_plus_two" / "00000123")
    [y] = servable.run(("x:0",), ("y:0",), [np.array([2.0], np.float32)])
    assert y.tolist() == [3.0]
    servable.close()


@pytest.mark.parametrize(
    ("files", "tags", "error"),
    [
        (
            {},
            "serve",
            "NOT_FOUND: Could not find SavedModel .pb or .pbtxt at supplied export directory path: ",
        ),
        ({"saved_model.pb": b"x"}, "serve", "OUT_OF_RANGE: Read less bytes than requested"),
        (
            {"saved_model.pb": b""},
            "serve",
            "NOT_FOUND: Could not find meta graph def matching supplied tags: { serve }",
        ),
    ],
)
def test_directories_that_hold_no_model(
    tmp_path: Path, files: dict[str, bytes], tags: str, error: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ServingError) as caught:
        load(tmp_path, tags)
    assert str(caught.value).startswith(error)


def test_missing_variables(constant: Callable[..., Path], tmp_path: Path) -> None:
    directory = constant(tmp_path / "model", 1, 1.0)
    for path in (directory / "variables").iterdir():
        path.unlink()
    with pytest.raises(ServingError):
        load(directory)


def test_warm_up_runs_every_record_as_often_as_asked(tmp_path: Path) -> None:
    requests = [PredictRequest(model_spec={"name": name}) for name in "ab"]
    _write(
        tmp_path,
        [PredictionLog(predict_log={"request": request}).SerializeToString() for request in requests],
    )
    seen: list[PredictRequest] = []
    warm_up(tmp_path, seen.append, iterations=2)
    assert [request.model_spec.name for request in seen] == ["a", "a", "b", "b"]


def test_no_warm_up_file(tmp_path: Path) -> None:
    warm_up(tmp_path, pytest.fail, iterations=1)


def test_warm_up_has_a_limit(tmp_path: Path) -> None:
    _write(tmp_path, [PredictionLog(predict_log={}).SerializeToString()] * 1001)
    with pytest.raises(
        ServingError, match=r"INVALID_ARGUMENT: Number of warmup records exceeds the maximum \(1000\)"
    ):
        warm_up(tmp_path, lambda _: None, iterations=1)


def test_warm_up_records_that_are_none(tmp_path: Path) -> None:
    _write(tmp_path, [b"\xff"])
    with pytest.raises(ServingError, match="INVALID_ARGUMENT: Failed to parse warmup record"):
        warm_up(tmp_path, lambda _: None, iterations=1)
    (tmp_path / "assets.extra" / "tf_serving_warmup_requests").write_bytes(
        b"no records at all, but long enough"
    )
    with pytest.raises(
        ServingError, match=r"DATA_LOSS: .*Please verify your warmup data is in TFRecord format"
    ):
        warm_up(tmp_path, lambda _: None, iterations=1)


def _write(directory: Path, records: list[bytes]) -> None:
    (directory / "assets.extra").mkdir()
    with tf.io.TFRecordWriter(str(directory / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        for record in records:
            writer.write(record)
