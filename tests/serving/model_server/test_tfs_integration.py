"""The calls that TensorFlow Serving's own integration test makes of the features that are here."""

import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, get_model_status_pb2, inference_pb2, regression_pb2
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from tests.processes import DIGITS

BATCHING = "max_batch_size { value: 8 } batch_timeout_micros { value: 0 } num_batch_threads { value: 2 }"


def ask(address: str, x: Any, y_only: bool, model: str = "half_plus_two", signature: str = "") -> Any:
    request = PredictRequest(output_filter=["y"] if y_only else [])
    request.model_spec.name, request.model_spec.signature_name = model, signature
    request.inputs["x"].dtype = tf.float32.as_datatype_enum
    request.inputs["x"].float_val.append(x)
    request.inputs["x"].tensor_shape.dim.add(size=1)
    with grpc.insecure_channel(address) as channel:
        return PredictionServiceStub(channel).Predict(request, 5)


@pytest.mark.parametrize("y_only", [True, False])
@pytest.mark.parametrize(("model", "expected"), [("half_plus_two", 3.0), ("half_plus_three", 4.0)])
def test_predict(server: Any, model: str, expected: float, y_only: bool) -> None:
    response = ask(f"localhost:{server.port}", 2.0, y_only, model)
    assert response.outputs["y"].dtype == tf.float32.as_datatype_enum
    assert list(response.outputs["y"].float_val) == [expected]
    spec = response.model_spec
    assert (spec.name, spec.signature_name, spec.version.value) == (model, "serving_default", 123)


def test_predict_over_a_unix_socket(server: Any) -> None:
    socket = server.log.parent / "grpc.sock"
    assert list(ask(f"unix:{socket}", 2.0, False).outputs["y"].float_val) == [3.0]


def test_a_missing_model(server: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        server.prediction.Predict(PredictRequest(model_spec={"name": "intentionally_missing_model"}), 5)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == "Servable not found for request: Latest(intentionally_missing_model)"


def test_status(server: Any) -> None:
    request = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "half_plus_two"})
    [status] = server.models.GetModelStatus(request, 5).model_version_status
    assert (status.version, status.state, status.status.error_code) == (123, status.AVAILABLE, 0)
    assert server.rest("/v1/models/half_plus_two").json() == {
        "model_version_status": [
            {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }


def test_metadata_over_rest_lists_every_signature(server: Any) -> None:
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


def test_predict_over_rest(server: Any) -> None:
    path = "/v1/models/half_plus_two:predict"
    assert server.rest(path, {"instances": [2.0, 3.0, 4.0]}).json() == {"predictions": [3.0, 3.5, 4.0]}
    assert server.rest(path, {"inputs": [2.0, 3.0, 4.0]}).json() == {"outputs": [3.0, 3.5, 4.0]}


def test_prometheus(server: Any) -> None:
    assert "# TYPE" in server.rest("/metrics").text


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("Classify", classification_pb2.ClassificationRequest()),
        ("Regress", regression_pb2.RegressionRequest()),
        ("MultiInference", inference_pb2.MultiInferenceRequest()),
    ],
)
def test_unsupported_methods_answer_unimplemented(server: Any, method: str, request_: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        getattr(server.prediction, method)(request_, 5)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "Predict" in str(caught.value.details())


def test_predict_with_batching_and_channel_arguments(serve: Any, saved_models: Path, tmp_path: Path) -> None:
    parameters = tmp_path / "batching.config"
    parameters.write_text(BATCHING)
    server = serve(
        "--model_name=half_plus_two",
        f"--model_base_path={saved_models / 'half_plus_two'}",
        "--enable_batching",
        f"--batching_parameters_file={parameters}",
        "--grpc_channel_arguments=grpc.max_connection_age_ms=2000,grpc.lb_policy_name=grpclb",
    )
    for y_only in (True, False):
        assert list(ask(f"localhost:{server.port}", 2.0, y_only).outputs["y"].float_val) == [3.0]


def test_a_bad_config_file_ends_the_start(tmp_path: Path) -> None:
    config = tmp_path / "bad.config"
    config.write_text('improperly formatted file!\n{ name: "x" }')
    command = [*DIGITS, "model-server", f"--model_config_file={config}"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode not in (0, 2)
    assert "Error parsing text-format tensorflow.serving.ModelServerConfig" in ended.stderr
    assert f"Invalid protobuf file: '{config}'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_config_file_is_polled(serve: Any, saved_models: Path, tmp_path: Path) -> None:
    config = tmp_path / "models.config"
    line = (
        'model_config_list {{ config {{ name: "{0}" base_path: "{1}/{0}" model_platform: "tensorflow" }} }}'
    )
    config.write_text(line.format("half_plus_two", saved_models))
    server = serve(f"--model_config_file={config}", "--model_config_file_poll_wait_seconds=1")
    address = f"localhost:{server.port}"
    assert list(ask(address, 2.0, False).outputs["y"].float_val) == [3.0]
    config.write_text(line.format("half_plus_three", saved_models))
    server.wait_for(lambda: server.states("half_plus_three") == {"123": "AVAILABLE"})
    assert list(ask(address, 2.0, False, "half_plus_three").outputs["y"].float_val) == [4.0]
    server.wait_for(lambda: server.states("half_plus_two") == {"123": "END"})
