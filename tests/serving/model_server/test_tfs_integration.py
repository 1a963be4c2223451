"""Calls of TensorFlow Serving's own integration test (tensorflow_model_server_test.py) to a process."""

import subprocess
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import tensorflow as tf
from tensorflow_serving.apis import get_model_status_pb2
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from tests.processes import MODEL_SERVER
from tests.serving.model_server.conftest import Serve, ServerProcess
from tests.serving.model_servers import model_config

pytestmark = pytest.mark.original

BATCHING = "max_batch_size { value: 8 } batch_timeout_micros { value: 0 } num_batch_threads { value: 2 }"


def predict(address: str, x: float, model: str = "half_plus_two", outputs: tuple[str, ...] = ()) -> Any:
    request = PredictRequest(model_spec={"name": model}, output_filter=outputs)
    request.inputs["x"].dtype = tf.float32.as_datatype_enum
    request.inputs["x"].float_val.append(x)
    request.inputs["x"].tensor_shape.dim.add(size=1)
    with grpc.insecure_channel(address) as channel:
        return PredictionServiceStub(channel).Predict(request, 5)


@pytest.mark.parametrize("outputs", [("y",), ()])
@pytest.mark.parametrize(("model", "expected"), [("half_plus_two", 3.0), ("half_plus_three", 4.0)])
def test_predict_returns_output_and_model_spec(
    server: ServerProcess, model: str, expected: float, outputs: tuple[str, ...]
) -> None:
    response = predict(f"localhost:{server.port}", 2.0, model, outputs)
    assert response.outputs["y"].dtype == tf.float32.as_datatype_enum
    assert list(response.outputs["y"].float_val) == [expected]
    spec = response.model_spec
    assert (spec.name, spec.signature_name, spec.version.value) == (model, "serving_default", 123)


def test_predict_over_unix_socket(server: ServerProcess) -> None:
    socket = server.log.parent / "grpc.sock"
    assert list(predict(f"unix:{socket}", 2.0).outputs["y"].float_val) == [3.0]


def test_predict_missing_model_is_not_found(server: ServerProcess) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        server.prediction.Predict(PredictRequest(model_spec={"name": "intentionally_missing_model"}), 5)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == "Servable not found for request: Latest(intentionally_missing_model)"


def test_status_over_grpc_and_rest(server: ServerProcess) -> None:
    request = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "half_plus_two"})
    [status] = server.models.GetModelStatus(request, 5).model_version_status
    assert (status.version, status.state, status.status.error_code) == (123, status.AVAILABLE, 0)
    assert server.rest("/v1/models/half_plus_two").json() == {
        "model_version_status": [
            {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }


def test_metadata_over_rest_lists_every_signature(server: ServerProcess) -> None:
    metadata = server.rest("/v1/models/half_plus_two/metadata").json()
    assert metadata["model_spec"] == {"name": "half_plus_two", "signature_name": "", "version": "123"}
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    assert signatures.keys() == {"serving_default", "regress_x_to_y", "classify_x_to_y"}
    classify = signatures["classify_x_to_y"]
    assert classify["method_name"] == "tensorflow/serving/classify"
    shape = {"dim": [], "unknown_rank": True}
    example = {"dtype": "DT_STRING", "tensor_shape": shape, "name": "tf_example:0"}
    assert classify["inputs"]["inputs"] == example
    rows = {"dim": [{"size": "-1", "name": ""}, {"size": "1", "name": ""}], "unknown_rank": False}
    assert signatures["serving_default"]["outputs"]["y"] == {
        "dtype": "DT_FLOAT",
        "tensor_shape": rows,
        "name": "y:0",
    }


def test_predict_over_rest(server: ServerProcess) -> None:
    path = "/v1/models/half_plus_two:predict"
    assert server.rest(path, {"instances": [2.0, 3.0, 4.0]}).json() == {"predictions": [3.0, 3.5, 4.0]}
    assert server.rest(path, {"inputs": [2.0, 3.0, 4.0]}).json() == {"outputs": [3.0, 3.5, 4.0]}


def test_rest_connection_is_kept_open_on_every_address(server: ServerProcess) -> None:
    for host in ("127.0.0.1", "localhost"):
        with httpx.Client(base_url=f"http://{host}:{server.rest_port}") as client:
            answers = [client.get("/v1/models/half_plus_two") for _ in range(3)]
        assert {answer.status_code for answer in answers} == {200}
        assert len({id(answer.extensions["network_stream"]) for answer in answers}) == 1


def test_metrics_page_is_served(server: ServerProcess) -> None:
    assert "# TYPE" in server.rest("/metrics").text


def test_start_with_bad_config_file_exits_with_255(tmp_path: Path) -> None:
    config = tmp_path / "bad.config"
    config.write_text('improperly formatted file!\n{ name: "x" }')
    command = [*MODEL_SERVER, f"--model_config_file={config}"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 255
    assert "Error parsing text-format tensorflow.serving.ModelServerConfig" in result.stderr
    assert (
        f"Failed to start server. Error: INVALID_ARGUMENT: Invalid protobuf file: '{config}'" in result.stdout
    )
    assert "Traceback" not in result.stderr


@pytest.mark.e2e
def test_predict_with_batching_and_channel_arguments(
    serve: Serve, saved_models: Path, tmp_path: Path
) -> None:
    parameters = tmp_path / "batching.config"
    parameters.write_text(BATCHING)
    server = serve(
        "--model_name=half_plus_two",
        f"--model_base_path={saved_models / 'half_plus_two'}",
        "--enable_batching",
        f"--batching_parameters_file={parameters}",
        "--grpc_channel_arguments=grpc.max_connection_age_ms=2000,grpc.lb_policy_name=grpclb",
    )
    for outputs in (("y",), ()):
        response = predict(f"localhost:{server.port}", 2.0, outputs=outputs)
        assert list(response.outputs["y"].float_val) == [3.0]


@pytest.mark.e2e
def test_config_file_is_polled(serve: Serve, saved_models: Path, tmp_path: Path) -> None:
    config = tmp_path / "models.config"

    def write(model: str) -> None:
        config.write_text(f"model_config_list {{ {model_config(model, saved_models / model)} }}")

    write("half_plus_two")
    server = serve(f"--model_config_file={config}", "--model_config_file_poll_wait_seconds=1")
    address = f"localhost:{server.port}"
    assert list(predict(address, 2.0).outputs["y"].float_val) == [3.0]
    write("half_plus_three")
    server.wait_for(lambda: server.states("half_plus_three") == {"123": "AVAILABLE"})
    assert list(predict(address, 2.0, "half_plus_three").outputs["y"].float_val) == [4.0]
    server.wait_for(lambda: server.states("half_plus_two") == {"123": "END"})
