"""Loading, running and warming up SavedModels."""

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


def test_run_tensorflow_1_model_returns_output(saved_models: Path) -> None:
    servable = load(saved_models / "half_plus_two" / "00000123")
    [y] = servable.run(("x:0",), ("y:0",), [np.array([2.0], np.float32)])
    assert y.tolist() == [3.0]
    servable.close()


@pytest.mark.parametrize(
    ("content", "error"),
    [(None, "SavedModel file does not exist"), (b"x", "Cannot parse file"), (b"", "could not be found")],
    ids=["missing", "corrupt", "empty"],
)
def test_load_directory_without_usable_model_raises(
    tmp_path: Path, content: bytes | None, error: str
) -> None:
    if content is not None:
        (tmp_path / "saved_model.pb").write_bytes(content)
    with pytest.raises(ServingError, match=error):
        load(tmp_path)


def test_load_other_tags_raises(saved_models: Path) -> None:
    with pytest.raises(ServingError, match="'train'"):
        load(saved_models / "half_plus_two" / "00000123", tags="train")


def test_load_without_variables_raises(publish: Callable[..., Path], tmp_path: Path) -> None:
    directory = publish(tmp_path / "model", 1, 1.0)
    for path in (directory / "variables").iterdir():
        path.unlink()
    with pytest.raises(ServingError):
        load(directory)


def write_warmup_records(directory: Path, records: list[bytes]) -> Path:
    path = directory / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return path


def test_warm_up_several_iterations_sends_every_record_each_time(tmp_path: Path) -> None:
    logs = [PredictionLog(predict_log={"request": {"model_spec": {"name": name}}}) for name in "ab"]
    write_warmup_records(tmp_path, [log.SerializeToString() for log in logs])
    sent: list[PredictRequest] = []
    assert warm_up(tmp_path, sent.append, iterations=2) == 2
    assert [request.model_spec.name for request in sent] == ["a", "a", "b", "b"]


def test_warm_up_without_file_sends_nothing(tmp_path: Path) -> None:
    assert warm_up(tmp_path, pytest.fail, iterations=1) == 0


def test_warm_up_with_more_than_a_thousand_records_raises(tmp_path: Path) -> None:
    write_warmup_records(tmp_path, [b""] * 1001)
    with pytest.raises(ServingError, match="has more than 1000 warm-up requests"):
        warm_up(tmp_path, lambda _: None, iterations=1)


def test_warm_up_with_unusable_records_raises(tmp_path: Path) -> None:
    path = write_warmup_records(tmp_path, [b"\xff"])
    for content in (path.read_bytes(), b"no records at all, but long enough"):
        path.write_bytes(content)
        with pytest.raises(ServingError, match=f"unusable warm-up requests in {path}"):
            warm_up(tmp_path, lambda _: None, iterations=1)
