"""Behaviour that the processes of the drop-in and TensorFlow Serving share, and the drop-in's shutdown.

The calls are those of TensorFlow Serving's own integration test, tensorflow_model_server_test.py, and further
ones.
"""

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from grpc_health.v1 import health_pb2
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from tests.processes import accepts
from tests.serving.model_server.conftest import Serve, ServerProcess
from tests.serving.model_servers import model_config, predict_request

pytestmark = pytest.mark.e2e
original = pytest.mark.original
MODEL = "/v1/models/half_plus_two"
TWO = np.array([2.0], np.float32)


@original
def test_predict_at_each_address_returns_output_and_model_spec(server: ServerProcess) -> None:
    for address in ("unix:{0.log.parent}/grpc.sock", "127.0.0.1:{0.port}", "localhost:{0.port}"):
        with grpc.insecure_channel(address.format(server)) as channel:
            stub = PredictionServiceStub(channel)
            for model, outputs, value in (("half_plus_two", ("y",), 3.0), ("half_plus_three", (), 4.0)):
                response = stub.Predict(predict_request(model, "", outputs, x=TWO), 5)
                assert list(response.outputs["y"].float_val) == [value]
                spec = response.model_spec
                assert (spec.name, spec.signature_name, spec.version.value) == (model, "serving_default", 123)


@original
def test_predict_error_becomes_status(server: ServerProcess) -> None:
    label = predict_request("versions", x=TWO)
    label.model_spec.version_label = "canary"
    size = predict_request("half_plus_two", x=TWO)
    size.inputs["x"].tensor_shape.dim[0].size = -1
    for request, code, details in (
        (predict_request("none", x=TWO), "NOT_FOUND", "Servable not found for request: Latest(none)"),
        (label, "INVALID_ARGUMENT", "Unrecognized servable version label: canary"),
        (size, "INVALID_ARGUMENT", ""),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            server.prediction.Predict(request, 5)
        assert caught.value.code().name == code
        assert details in str(caught.value.details())


@original
def test_status_over_grpc_and_rest(server: ServerProcess) -> None:
    request = GetModelStatusRequest(model_spec={"name": "half_plus_two"})
    [status] = server.models.GetModelStatus(request, 5).model_version_status
    assert (status.version, status.state, status.status.error_code) == (123, status.AVAILABLE, 0)
    assert server.rest(MODEL).json() == {
        "model_version_status": [
            {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }


@original
def test_metadata_over_rest_lists_every_signature(server: ServerProcess) -> None:
    metadata = server.rest(f"{MODEL}/metadata").json()
    assert metadata["model_spec"] == {"name": "half_plus_two", "signature_name": "", "version": "123"}
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    assert signatures.keys() == {"serving_default", "regress_x_to_y", "classify_x_to_y"}
    classify = signatures["classify_x_to_y"]
    assert classify["method_name"] == "tensorflow/serving/classify"
    shape = {"dim": [], "unknown_rank": True}
    example = {"dtype": "DT_STRING", "tensor_shape": shape, "name": "tf_example:0"}
    assert classify["inputs"]["inputs"] == example
    rows = {"dim": [{"size": "-1", "name": ""}, {"size": "1", "name": ""}], "unknown_rank": False}
    output = {"dtype": "DT_FLOAT", "tensor_shape": rows, "name": "y:0"}
    assert signatures["serving_default"]["outputs"]["y"] == output


@original
@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        (f"{MODEL}:predict", '{"instances": [2.0, 3.0, 4.0]}', {"predictions": [3.0, 3.5, 4.0]}),
        (f"{MODEL}:predict", '{"inputs": [2.0, 3.0, 4.0]}', {"outputs": [3.0, 3.5, 4.0]}),
        (f"{MODEL}:predict", '{"inputs": [1e39]}', {"outputs": [np.inf]}),
        (f"{MODEL}:predict", '{"inputs": [16777217]}', {"outputs": [8388610.0]}),
        (f"{MODEL}:predict", '{"inputs": 2.0, "inputs": 4.0} text', {"outputs": 3.0}),
        ("/v1/models/versions:predict", '{"instances": [0.0]}', {"predictions": [2.0]}),
        ("/v1/models/versions/versions/1:predict", '{"instances": [0.0]}', {"predictions": [1.0]}),
        ("/v1/models/versions/labels/stable:predict", '{"instances": [0.0]}', {"predictions": [1.0]}),
    ],
)
def test_rest_answer(server: ServerProcess, path: str, body: str, answer: Any) -> None:
    assert server.rest(path, body).json() == answer


@original
@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (f"{MODEL}:Predict", '{"instances": [2.0]}', 400),
        (f"{MODEL}?x=1", "", 404),
        (f"{MODEL}/labels/new", "", 404),
        (f"{MODEL}/metadata?x=1", "", 400),
    ],
)
def test_rest_status_of_unusual_request(server: ServerProcess, path: str, body: str, status: int) -> None:
    assert server.rest(path, body).status_code == status


@original
def test_rest_connection_is_kept_open_on_every_address(server: ServerProcess) -> None:
    for host in ("127.0.0.1", "localhost"):
        with httpx.Client(base_url=f"http://{host}:{server.rest_port}") as client:
            answers = [client.get(MODEL) for _ in range(3)]
        assert {answer.status_code for answer in answers} == {200}
        assert len({id(answer.extensions["network_stream"]) for answer in answers}) == 1


@original
def test_health_check_is_serving_for_the_server_and_not_found_for_another_name(server: ServerProcess) -> None:
    for service in ("", "ModelService", "PredictionService"):
        answer = server.health.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        server.health.Check(health_pb2.HealthCheckRequest(service="none"), timeout=5)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@original
def test_requests_are_counted_by_model_and_status(server: ServerProcess) -> None:
    server.predict("half_plus_two", x=TWO)
    assert "# TYPE" in server.rest("/metrics").text
    assert server.metric("serving:request_count", 'model_name="half_plus_two"', 'status="OK"') >= 1
    latency = server.metric("serving:request_latency_count", 'model_name="half_plus_two"', 'API="Predict"')
    assert latency >= 1


@original
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
    server.wait_for(lambda: server.states("default") == {"3": "AVAILABLE", "2": "END", "1": "END"})
    answer = server.rest("/v1/models/default:predict", '{"instances": [0.0]}')
    assert answer.json() == {"predictions": [3.0]}
    loads = ("cc:saved_model:load_attempt_count", f'model_path="{base / "2"}"', 'status="fail"')
    assert server.metric(*loads) == 1 + retries


@original
def test_start_with_warm_up_batching_and_channel_arguments(
    serve: Serve, publish: Callable[..., Path], tmp_path: Path
) -> None:
    version = publish(tmp_path / "model", 1, 1.0)
    (version / "assets.extra").mkdir()
    log = PredictionLog(predict_log={"request": predict_request("default", x=TWO)})
    with tf.io.TFRecordWriter(str(version / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        for entry in (log, PredictionLog()):
            writer.write(entry.SerializeToString())
    parameters = tmp_path / "batching.config"
    parameters.write_text("max_batch_size { value: 8 } num_batch_threads { value: 2 }")
    server = serve(
        f"--model_base_path={tmp_path / 'model'}",
        "--enable_batching",
        f"--batching_parameters_file={parameters}",
        "--grpc_channel_arguments=grpc.max_connection_age_ms=2000,grpc.lb_policy_name=grpclb",
    )
    assert list(server.predict("default", x=TWO).outputs["y"].float_val) == [1.0]


@original
def test_config_file_is_polled_and_replaced_by_a_request(
    serve: Serve, saved_models: Path, tmp_path: Path
) -> None:
    config = tmp_path / "models.config"

    def models(*names: str) -> str:
        return (
            f"model_config_list {{ {' '.join(model_config(name, saved_models / name) for name in names)} }}"
        )

    config.write_text(models("half_plus_two"))
    server = serve(f"--model_config_file={config}", "--model_config_file_poll_wait_seconds=1")
    config.write_text("model_config_list {")
    time.sleep(1.5)
    assert server.states("half_plus_two") == {"123": "AVAILABLE"}
    config.write_text(models("half_plus_three"))
    server.wait_for(lambda: server.states("half_plus_three") == {"123": "AVAILABLE"})
    server.wait_for(lambda: server.states("half_plus_two") == {"123": "END"})
    config.write_text(models("half_plus_three", "tf2"))
    request = text_format.Parse(f"config {{ {models('half_plus_three', 'tf2')} }}", ReloadConfigRequest())
    server.models.HandleReloadConfigRequest(request, 30)
    assert server.states("tf2") == {"1": "AVAILABLE"}


def test_rest_body_beyond_twice_the_limit_is_refused_before_it_is_sent(server: ServerProcess) -> None:
    head = f"POST {MODEL}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {2**27}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.rest_port), 5) as connection:
        connection.sendall(head.encode())
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"exceeds max_body of 134217728" in answer


@pytest.mark.xdist_group("timing")
def test_process_opens_ports_with_model_and_drains_at_sigterm(
    serve: Serve, saved_models: Path, tmp_path: Path
) -> None:
    base = tmp_path / "model"
    server = serve(f"--model_base_path={base}", wait=False)
    server.wait_for(lambda: "Could not find base path" in server.log.read_text())
    assert not accepts(server.port)
    assert not accepts(server.rest_port)
    base.symlink_to(saved_models / "tf2")
    server.wait_for(lambda: accepts(server.rest_port))
    answers: list[Any] = []

    def predict_over_rest() -> None:
        body = '{"signature_name": "wait", "inputs": [2.0]}'
        answers.append(server.rest("/v1/models/default:predict", body).json()["outputs"])

    def predict_over_grpc() -> None:
        answers.append(list(server.predict("default", "wait", seconds=[2.0]).outputs["y"].float_val))

    threads = [threading.Thread(target=target) for target in (predict_over_rest, predict_over_grpc)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    server.process.terminate()
    for thread in threads:
        thread.join()
    assert server.process.wait(10) == 0
    assert answers == [[2.0], [2.0]]
    assert "Traceback" not in server.log.read_text()


def test_memory_of_large_rest_calls_returns_to_the_system(serve: Serve, saved_models: Path) -> None:
    started = serve(f"--model_base_path={saved_models / 'tf2'}", "--model_name=tf2")
    row = ",".join(["0.1234567890123456"] * 784)
    body = f'{{"instances": [{",".join([f"[{row}]"] * 1250)}]}}'
    assert len(body) > 18_000_000
    url = f"http://127.0.0.1:{started.rest_port}/v1/models/tf2:predict"

    def post(content: str) -> int:
        return httpx.post(url, content=content, timeout=60).status_code

    assert post(f'{{"instances": [[{row}]]}}') == 200
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(post, [body] * 16)) == {200}
    # It falls by 142 MiB and more within a second, and by 48 to 78 without a return.
    peak = memory(started, "VmHWM")
    started.wait_for(lambda: memory(started, "VmRSS") < peak - 110)


def memory(server: ServerProcess, name: str) -> int:
    """Return the resident memory of a model server in MiB, now (VmRSS) or at its peak (VmHWM)."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) // 1024
