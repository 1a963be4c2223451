"""Behaviour that the processes of the drop-in and TensorFlow Serving share: loading, limits, metrics."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from grpc_health.v1 import health_pb2
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from tests.serving.model_server.conftest import Serve, ServerProcess
from tests.serving.model_servers import model_config, predict_request

pytestmark = pytest.mark.original

LOADS = "cc:saved_model:load_attempt_count"
DEFAULT = "/v1/models/default:predict"


def test_health_check_is_serving_for_the_server_and_not_found_for_another_name(server: ServerProcess) -> None:
    answer = server.health.Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        server.health.Check(health_pb2.HealthCheckRequest(service="none"), timeout=5)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(("path", "value"), [("", 2.0), ("/versions/1", 1.0), ("/labels/stable", 1.0)])
def test_rest_path_selects_newest_version_number_or_label(
    server: ServerProcess, path: str, value: float
) -> None:
    answer = server.rest(f"/v1/models/versions{path}:predict", {"instances": [0.0]})
    assert answer.json() == {"predictions": [value]}


def test_rest_integer_outside_uint8_wraps(server: ServerProcess) -> None:
    def answer(value: int) -> Any:
        body = {"signature_name": "images", "instances": [[[value] * 28] * 28]}
        return server.rest("/v1/models/tf2:predict", body).json()

    assert answer(300) == answer(44)
    assert answer(-1) == answer(255)


def test_grpc_predict_of_unknown_label_is_invalid_argument(server: ServerProcess) -> None:
    request = predict_request("versions", x=np.array([0.0], np.float32))
    request.model_spec.version_label = "canary"
    with pytest.raises(grpc.RpcError) as caught:
        server.prediction.Predict(request, 5)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_requests_are_counted_by_model_and_status(server: ServerProcess) -> None:
    server.predict("half_plus_two", x=np.array([2.0], np.float32))
    assert server.metric("serving:request_count", 'model_name="half_plus_two"', 'status="OK"') >= 1
    latency = server.metric("serving:request_latency_count", 'model_name="half_plus_two"', 'API="Predict"')
    assert latency >= 1


@pytest.mark.e2e
def test_calls_beyond_the_threads_are_refused(serve: Serve, saved_models: Path) -> None:
    server = serve(f"--model_base_path={saved_models / 'tf2'}", "--grpc_max_threads=4")
    stub = server.prediction
    calls = [stub.Predict.future(predict_request("default", "wait", seconds=[1.0]), 30) for _ in range(20)]
    codes = {call.code() for call in calls}
    assert codes == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}


@pytest.mark.e2e
def test_new_version_is_served_by_the_process(
    serve: Serve, publish: Callable[..., Path], tmp_path: Path
) -> None:
    base = tmp_path / "model"
    publish(base, 1, 1.0)
    server = serve(f"--model_base_path={base}")
    publish(base, 2, 2.0)
    server.wait_for(lambda: server.states("default") == {"2": "AVAILABLE", "1": "END"})
    assert server.rest(DEFAULT, {"instances": [0.0]}).json() == {"predictions": [2.0]}


@pytest.mark.e2e
@pytest.mark.parametrize("retries", [0, 2])
def test_broken_version_is_tried_again_before_another_one_is_loaded(
    serve: Serve, publish: Callable[..., Path], tmp_path: Path, retries: int
) -> None:
    base = tmp_path / "model"
    publish(base, 1, 1.0)
    flags = (f"--max_num_load_retries={retries}", "--load_retry_interval_micros=3000000")
    server = serve(f"--model_base_path={base}", *flags)
    (base / "2").mkdir()
    (base / "2" / "saved_model.pb").write_bytes(b"no protocol buffer")
    server.wait_for(lambda: "2" in server.states("default"))
    publish(base, 3, 3.0)
    server.wait_for(lambda: server.states("default").get("3") == "AVAILABLE")
    assert server.states("default")["2"] == "END"
    assert server.metric(LOADS, f'model_path="{base / "2"}"', 'status="fail"') == 1 + retries


@pytest.mark.e2e
def test_warm_up_requests_are_counted(serve: Serve, publish: Callable[..., Path], tmp_path: Path) -> None:
    base = tmp_path / "model"
    version = publish(base, 1, 1.0).rename(tmp_path / "unfinished")
    file = version / "assets.extra" / "tf_serving_warmup_requests"
    file.parent.mkdir()
    request = predict_request("default", x=np.array([0.0], np.float32))
    with tf.io.TFRecordWriter(str(file)) as writer:
        for _ in range(3):
            writer.write(PredictionLog(predict_log={"request": request}).SerializeToString())
    version.rename(base / "1")
    server = serve(f"--model_base_path={base}")
    path = f'model_path="{base / "1"}"'
    assert server.metric("serving:model_warmup_records_read", path) == 3
    assert server.metric("serving:model_warmup_latency_count", path) == 1


@pytest.mark.e2e
def test_reload_config_request_returns_increase_of_named_metrics(serve: Serve, saved_models: Path) -> None:
    base, metric = saved_models / "half_plus_two", f"/tensorflow/{LOADS.replace(':', '/')}"
    server = serve("--model_name=two", f"--model_base_path={base}")
    models = f"{model_config('two', base)} {model_config('again', base)}"
    request = text_format.Parse(f"config {{ model_config_list {{ {models} }} }}", ReloadConfigRequest())
    request.metric_names.extend([metric, "/tensorflow/serving/unknown"])
    response = server.models.HandleReloadConfigRequest(request, 30)
    increases = {entry.name: entry.int64_value_increase for entry in response.metric}
    assert increases == {metric: 1, "/tensorflow/serving/unknown": 0}
    assert server.states("again") == {"123": "AVAILABLE"}
