"""Versions: policies, loading, warm-up, replacement and reload."""

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from digit_serving.errors import ServingError
from digit_serving.model_server import manager
from digit_serving.model_server.core import ServerCore
from digit_serving.model_server.flags import parse
from digit_serving.model_server.manager import State, Version, next_action
from digit_serving.model_server.servable import Servable, warm_up
from tests.processes import wait_until
from tests.serving.model_servers import model_config, predict_request, running_core

RETRIES = ("--load_retry_interval_micros=1000", "--max_num_load_retries=1")
X = np.array([0.0], np.float32)
PRINT_MEMORY = """
import os, sys
from pathlib import Path
from digit_serving.model_server.flags import parse
from digit_serving.model_server.servable import Servable

def memory():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def load():
    return Servable(Path(sys.argv[1]), 1, parse([]))

stays, before = load(), memory()
loaded = [load() for _ in range(10)]
used = memory() - before
for servable in loaded:
    servable.close()
print(used, memory() - before)
"""


@pytest.mark.parametrize(
    ("missing", "content", "tags", "error"),
    [
        ("saved_model.pb", None, "serve", "SavedModel file does not exist"),
        ("saved_model.pb", b"x", "serve", "Cannot parse file"),
        ("saved_model.pb", b"", "serve", "could not be found"),
        ("variables/variables.index", None, "serve", "variables"),
        ("", None, "train", "'train'"),
    ],
)
def test_load_directory_without_usable_model_raises(
    publish: Callable[..., Path], tmp_path: Path, missing: str, content: bytes | None, tags: str, error: str
) -> None:
    directory = publish(tmp_path / "model", 1, 1.0)
    if missing:
        (directory / missing).unlink()
    if content is not None:
        (directory / missing).write_bytes(content)
    with pytest.raises(ServingError, match=error):
        Servable(directory, 1, parse([f"--saved_model_tags={tags}"]))


@pytest.mark.slow
def test_memory_of_unloaded_versions_returns_to_the_system(saved_models: Path) -> None:
    command = [sys.executable, "-c", PRINT_MEMORY, str(saved_models / "tf2" / "1")]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    used, left = map(int, printed.split())
    assert left < used / 2


def write_warmup_records(directory: Path, *records: bytes) -> Path:
    path = directory / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return path


def test_warm_up_several_iterations_sends_every_predict_request_each_time(tmp_path: Path) -> None:
    logs = [PredictionLog(predict_log={"request": {"model_spec": {"name": name}}}) for name in "ab"]
    others = [PredictionLog(), PredictionLog(classify_log={})]
    write_warmup_records(tmp_path, *(log.SerializeToString() for log in [*logs, *others]))
    sent: list[PredictRequest] = []
    warm_up(tmp_path, sent.append, iterations=2)
    assert [request.model_spec.name for request in sent] == ["a", "a", "b", "b"]


@pytest.mark.parametrize(
    ("records", "error"),
    [([b"\xff"], "The warm-up requests in .* can't be read: "), ([b""] * 1001, "has more than 1000")],
)
def test_warm_up_with_unusable_records_raises(tmp_path: Path, records: list[bytes], error: str) -> None:
    path = write_warmup_records(tmp_path, *records)
    with pytest.raises(ServingError, match=error):
        warm_up(tmp_path, lambda _: None, iterations=1)
    path.write_bytes(b"no records at all, but long enough")
    with pytest.raises(ServingError, match=f"The warm-up requests in {path} can't be read: "):
        warm_up(tmp_path, lambda _: None, iterations=1)


def test_version_with_warm_up_request_beyond_the_limit_does_not_load(
    publish: Callable[..., Path], tmp_path: Path
) -> None:
    base = tmp_path / "model"
    publish(base, 1, 1.0)
    with running_core(f"--model_base_path={base}", *RETRIES) as core:
        request = predict_request("default")
        request.inputs["x"].CopyFrom(tf.make_tensor_proto(0.0, shape=[600_000]))
        log = PredictionLog(predict_log={"request": request})
        version = publish(tmp_path / "other", 2, 2.0)
        write_warmup_records(version, log.SerializeToString())
        version.rename(base / "2")
        wait_until(lambda: states(core, "default") == {2: "END", 1: "AVAILABLE"})
        spec = {"name": "default", "version": {"value": 2}}
        (failed,) = core.status(GetModelStatusRequest(model_spec=spec)).model_version_status
        assert "The request counts as 76,800,000 bytes" in failed.status.error_message


@pytest.mark.parametrize(
    ("versions", "labelled", "number"),
    [
        ("", (), None),
        ("2:START 1:START", (), 2),
        ("3:START 2:START 1:START", (1, 2), 2),
        ("2:START 1:AVAILABLE:surplus", (), 2),
        ("2:AVAILABLE 1:AVAILABLE:surplus", (), 1),
        ("2:END 1:AVAILABLE:surplus", (), None),
        ("2:AVAILABLE:surplus 1:AVAILABLE:surplus", (), 1),
        ("3:START 2:AVAILABLE:surplus 1:AVAILABLE:surplus", (), 1),
        ("1:AVAILABLE:surplus", (), 1),
        ("1:AVAILABLE", (), None),
    ],
)
def test_next_action_preserves_availability_and_loads_labelled_versions_first(
    versions: str, labelled: tuple[int, ...], number: int | None
) -> None:
    parts = [version.split(":") for version in versions.split()]
    known = [Version("m", int(v), Path(), not surplus, State.Value(state)) for v, state, *surplus in parts]
    chosen = next_action(known, labelled)
    assert (chosen and chosen.number) == number


def states(core: ServerCore, model: str) -> dict[int, str]:
    statuses = core.status(GetModelStatusRequest(model_spec={"name": model})).model_version_status
    return {status.version: State.Name(status.state) for status in statuses}


def predict(core: ServerCore, **spec: Any) -> list[float]:
    request = predict_request("", x=X)
    request.model_spec.CopyFrom(ModelSpec(**spec))
    return list(core.predict(request).outputs["y"].float_val)


def reload(core: ServerCore, *entries: str) -> None:
    core.reload(text_format.Parse(f"model_config_list {{ {' '.join(entries)} }}", ModelServerConfig()))


def publish_corrupt(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "saved_model.pb").write_bytes(b"no protocol buffer")


def test_manager_replaces_versions_without_failing_requests(
    publish: Callable[..., Path], tmp_path: Path
) -> None:
    base = tmp_path / "model"
    publish(base, 1, 1.0)
    answers: list[float] = []
    stop = threading.Event()
    with running_core(f"--model_base_path={base}", *RETRIES) as core:

        def keep_predicting() -> None:
            while not stop.is_set():
                answers.extend(predict(core, name="default"))
                time.sleep(0.005)

        thread = threading.Thread(target=keep_predicting)
        thread.start()
        publish(base, 2, 2.0)
        wait_until(lambda: states(core, "default") == {2: "AVAILABLE", 1: "END"})
        publish_corrupt(base / "3")
        wait_until(lambda: states(core, "default").get(3) == "END")
        assert states(core, "default")[2] == "AVAILABLE"
        spec = {"name": "default", "version": {"value": 3}}
        (failed,) = core.status(GetModelStatusRequest(model_spec=spec)).model_version_status
        assert failed.status.error_code == 3
        assert str(base / "3") in failed.status.error_message
        shutil.rmtree(base / "3")
        shutil.rmtree(base / "2")
        wait_until(lambda: states(core, "default")[1] == "AVAILABLE")
        wait_until(lambda: states(core, "default")[2] == "END")
        alive = thread.is_alive()
        stop.set()
        thread.join()
    assert alive, "a request failed"
    assert set(answers) == {1.0, 2.0}
    assert len(answers) > 10


def test_reload_applies_policies_labels_and_models(
    publish: Callable[..., Path], saved_models: Path, tmp_path: Path
) -> None:
    base = tmp_path / "model"
    for number in (1, 2, 3):
        publish(base, number, float(number))
    policy = "model_version_policy {{ {} }}".format
    label = 'version_labels {{ key: "stable" value: {} }}'.format
    with running_core(f"--model_base_path={base}", "--model_name=m", *RETRIES) as core:
        assert states(core, "m") == {3: "AVAILABLE"}
        reload(core, model_config("m", base, policy("specific { versions: 1 versions: 2 versions: 7 }")))
        wait_until(lambda: states(core, "m") == {1: "AVAILABLE", 2: "AVAILABLE", 3: "END"})
        reload(core, model_config("m", base, policy("latest { num_versions: 2 }")))
        wait_until(lambda: states(core, "m") == {1: "END", 2: "AVAILABLE", 3: "AVAILABLE"})
        reload(core, model_config("m", base, policy("all {}") + label(2)))
        wait_until(lambda: set(states(core, "m").values()) == {"AVAILABLE"})
        with pytest.raises(ServingError, match="label stable of model m can't be assigned to version 9"):
            reload(core, model_config("m", base, policy("all {}") + label(9)))
        assert predict(core, name="m", version_label="stable") == [2.0]
        reload(core, model_config("two", saved_models / "half_plus_two"))
        assert states(core, "two") == {123: "AVAILABLE"}
        wait_until(lambda: set(states(core, "m").values()) == {"END"})
        reload(core, model_config("m", base))
        assert states(core, "m")[3] == "AVAILABLE"
        wait_until(lambda: states(core, "two") == {123: "END"})


def test_reload_with_model_that_does_not_load_raises(saved_models: Path, tmp_path: Path) -> None:
    base = saved_models / "half_plus_two"
    publish_corrupt(tmp_path / "bad" / "1")
    message = r"UNKNOWN: 1 servable\(s\) did not become available: {name: bad version: 1} due to error: "
    with running_core(f"--model_base_path={base}", "--model_name=two", *RETRIES) as core:
        with pytest.raises(ServingError, match=message):
            reload(core, model_config("two", base), model_config("bad", tmp_path / "bad"))
        assert states(core, "two") == {123: "AVAILABLE"}


@pytest.mark.slow
def test_unload_with_a_call_without_end_stops_no_loading(
    publish: Callable[..., Path], saved_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "_UNLOAD_SECONDS", 20.0)
    publish(tmp_path / "other", 1, 1.0)
    hanging, other = model_config("hanging", saved_models / "tf2"), model_config("other", tmp_path / "other")
    with running_core(f"--model_base_path={tmp_path / 'other'}", "--model_name=other", *RETRIES) as core:
        reload(core, hanging, other)
        with ThreadPoolExecutor() as pool:
            call = begin_call_without_end(core, pool)
            reload(core, other)
            publish(tmp_path / "other", 2, 2.0)
            wait_until(lambda: states(core, "other") == {1: "END", 2: "AVAILABLE"})
            assert states(core, "hanging") == {1: "UNLOADING"}
            # A model that comes back is loaded beside the version that is still in use.
            reload(core, hanging, other)
            assert states(core, "hanging") == {1: "AVAILABLE"}
            assert not call.done()
            with pytest.raises(ServingError, match="CANCELLED"):
                call.result(60)
        assert states(core, "hanging") == {1: "AVAILABLE"}


def test_unload_cancels_a_call_without_end(
    saved_models: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(manager, "_UNLOAD_SECONDS", 0.5)
    with running_core(f"--model_base_path={saved_models / 'tf2'}", "--model_name=hanging") as core:
        with ThreadPoolExecutor() as pool:
            call = begin_call_without_end(core, pool)
            reload(core)
            with pytest.raises(ServingError, match="CANCELLED"):
                call.result(60)
        said = "Cancelling 1 calls of {name: hanging version: 1}: they have not ended within 0.5 s"
        assert said in caplog.text


def begin_call_without_end(core: ServerCore, pool: ThreadPoolExecutor) -> Future[Any]:
    """Return a call of the model `hanging` that has begun."""
    request = predict_request("hanging", "wait", seconds=np.array([1e9], np.float32))
    call = pool.submit(core.predict, request)
    wait_until(call.running)
    time.sleep(0.5)
    return call


def test_configure_with_a_label_that_can_not_move_moves_the_others(
    publish: Callable[..., Path], tmp_path: Path
) -> None:
    both = "model_version_policy {{ all {{}} }} version_labels {{ key: 'stable' value: {} }}".format
    bases = [tmp_path / name for name in ("a", "b")]
    for base in bases:
        for number in (1, 2):
            publish(base, number, float(number))
    with running_core(f"--model_base_path={bases[0]}", "--model_name=a", *RETRIES) as core:
        reload(core, *(model_config(base.name, base, "model_version_policy { all {} }") for base in bases))
        wait_until(lambda: states(core, "b") == {1: "AVAILABLE", 2: "AVAILABLE"})
        reload(core, *(model_config(base.name, base, both(1)) for base in bases))
        with pytest.raises(ServingError, match="label stable of model a can't be assigned to version 9"):
            reload(core, model_config("a", bases[0], both(9)), model_config("b", bases[1], both(2)))
        answers = [predict(core, name=name, version_label="stable") for name in ("a", "b")]
        assert answers == [[1.0], [2.0]]


def test_reload_without_models_raises(core: ServerCore) -> None:
    with pytest.raises(ServingError, match="must have a model_config_list"):
        core.reload_config(ReloadConfigRequest())
    with pytest.raises(ServingError, match="Cannot transition to requested config"):
        core.reload(ModelServerConfig())
    assert states(core, "half_plus_two") == {123: "AVAILABLE"}
