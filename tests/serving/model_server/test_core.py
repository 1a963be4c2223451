"""Calls of the core: Predict, GetModelMetadata, GetModelStatus, and their errors."""

import time
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from grpc import StatusCode
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from digit_serving.model_server.core import ServerCore
from digit_serving.model_server.errors import ServingError
from tests.serving.model_servers import predict_request, running_core

PIXELS = np.full((1, 784), 0.5, np.float32)


def predict(core: ServerCore, request: PredictRequest) -> Any:
    return core.predict(request, time.monotonic() + 10)


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({}, "INVALID_ARGUMENT: Missing ModelSpec"),
        ({"model_spec": {}}, "INVALID_ARGUMENT: ModelSpec has no name specified."),
        (
            {"model_spec": {"name": "tf2", "version": {"value": 7}}},
            r"NOT_FOUND: Servable not found for request: Specific\(tf2, 7\)",
        ),
        (
            {"model_spec": {"name": "versions", "version_label": "canary"}},
            "INVALID_ARGUMENT: Unrecognized servable version label: canary",
        ),
        (
            {"model_spec": {"name": "tf2", "signature_name": "nothing"}},
            'FAILED_PRECONDITION: Serving signature key "nothing" not found.',
        ),
    ],
)
def test_predict_without_fitting_model_raises(core: ServerCore, request_: Any, error: str) -> None:
    with pytest.raises(ServingError, match=f"^{error}"):
        predict(core, PredictRequest(**request_))


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        (
            {"wrong": PIXELS},
            (),
            r"inputs do not match the signature; missing: \['pixels'\], unexpected: \['wrong'\]",
        ),
        ({"pixels": PIXELS.astype(np.float64)}, (), "input pixels must be float, not double"),
        ({"pixels": PIXELS[:, :3]}, (), r"Matrix size-incompatible: In\[0\]: \[1,3\]"),
        ({"pixels": PIXELS}, ("wrong",), "output tensor alias not found in signature: wrong"),
        ({"pixels": PIXELS}, ("probabilities",) * 2, "duplicate output tensor alias: probabilities"),
    ],
)
def test_predict_request_outside_signature_raises(
    core: ServerCore, inputs: dict[str, Any], outputs: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ServingError, match=f"^INVALID_ARGUMENT: {message}"):
        predict(core, predict_request("tf2", "", outputs, **inputs))


def test_predict_tensor_with_too_few_values_raises(core: ServerCore) -> None:
    request = predict_request("tf2", pixels=PIXELS)
    request.inputs["pixels"].tensor_shape.dim[0].size = 2
    with pytest.raises(ServingError, match="INVALID_ARGUMENT: tensor parsing error: pixels"):
        predict(core, request)


def test_predict_after_deadline_raises(core: ServerCore) -> None:
    with pytest.raises(ServingError) as caught:
        core.predict(predict_request("tf2", pixels=PIXELS), time.monotonic())
    assert caught.value.code is StatusCode.DEADLINE_EXCEEDED


def test_predict_returns_typed_values_and_shape(core: ServerCore) -> None:
    response = predict(core, predict_request("tf2", "images", images=np.zeros((2, 28, 28), np.uint8)))
    output = response.outputs["probabilities"]
    assert not output.tensor_content
    assert list(output.float_val) == pytest.approx([0.1] * 20)
    assert [dim.size for dim in output.tensor_shape.dim] == [2, 10]


def test_predict_outputs_of_every_type_are_readable(core: ServerCore) -> None:
    outputs = predict(core, predict_request("tf2", "numbers", x=np.array([1.0, 2.0], np.float32))).outputs
    for name, proto in outputs.items():
        array = tf.make_ndarray(proto)
        assert array.dtype == name
        assert array.tolist() == [1, 2]


def test_predict_with_serialization_as_tensor_content(saved_models: Any) -> None:
    flag = "--enable_serialization_as_tensor_content=true"
    with running_core(f"--model_base_path={saved_models / 'half_plus_two'}", flag) as core:
        response = predict(core, predict_request("default", x=np.array([0.0], np.float32)))
    output = response.outputs["y"]
    assert np.frombuffer(output.tensor_content, np.float32).tolist() == [2.0]
    assert not output.float_val


def test_predict_shape_other_than_placeholder_is_accepted(core: ServerCore) -> None:
    output = predict(core, predict_request("half_plus_two", x=np.array([2.0], np.float32))).outputs["y"]
    assert list(output.float_val) == [3.0]
    assert [dim.size for dim in output.tensor_shape.dim] == [1]


def test_predict_strings_and_output_filter(core: ServerCore) -> None:
    inputs: dict[str, Any] = {"text": np.array([b"a", b"\xff"], object), "number": np.array([3, 4])}
    outputs = predict(core, predict_request("tf2", "many", **inputs)).outputs
    assert list(outputs["text"].string_val) == [b"a", b"\xff"]
    assert list(outputs["double"].int64_val) == [6, 8]
    assert list(outputs["odd"].bool_val) == [True, False]
    assert predict(core, predict_request("tf2", "many", ("odd",), **inputs)).outputs.keys() == {"odd"}


def test_predict_single_value_fills_the_shape(core: ServerCore) -> None:
    request = PredictRequest(model_spec={"name": "tf2"})
    request.inputs["pixels"].CopyFrom(tf.make_tensor_proto(0.5, shape=[1, 784]))
    assert len(request.inputs["pixels"].float_val) == 1
    assert len(predict(core, request).outputs["probabilities"].float_val) == 10


@pytest.mark.parametrize("values", [[300, -1] * 392, [-(2**31)]])
def test_predict_typed_values_for_uint8_wrap(core: ServerCore, values: list[int]) -> None:
    def probabilities(values: list[int]) -> list[float]:
        request = predict_request("tf2", "images", images=np.zeros((1, 28, 28), np.uint8))
        request.inputs["images"].ClearField("tensor_content")
        request.inputs["images"].int_val.extend(values)
        return list(predict(core, request).outputs["probabilities"].float_val)

    assert probabilities(values) == probabilities([value % 256 for value in values])


def test_predict_selects_newest_version_number_or_label(core: ServerCore) -> None:
    for spec, version in (({}, 2), ({"version": {"value": 1}}, 1), ({"version_label": "stable"}, 1)):
        request = PredictRequest(model_spec={"name": "versions", **spec})
        request.inputs["x"].CopyFrom(tf.make_tensor_proto([0.0], tf.float32))
        response = predict(core, request)
        assert response.model_spec.version.value == version
        assert list(response.outputs["y"].float_val) == [version]


def test_metadata_returns_version_and_signatures(core: ServerCore) -> None:
    response = core.metadata(
        GetModelMetadataRequest(model_spec={"name": "tf2"}, metadata_field=["signature_def"])
    )
    assert (response.model_spec.name, response.model_spec.version.value) == ("tf2", 1)
    signatures = SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert {"serving_default", "images"} <= signatures.signature_def.keys()


@pytest.mark.parametrize("fields", [[], ["other"]])
def test_metadata_of_other_fields_raises(core: ServerCore, fields: list[str]) -> None:
    request = GetModelMetadataRequest(model_spec={"name": "tf2"}, metadata_field=fields)
    with pytest.raises(ServingError, match="INVALID_ARGUMENT: metadata_field must be signature_def"):
        core.metadata(request)


def test_status_lists_versions_newest_first(core: ServerCore) -> None:
    statuses = core.status(GetModelStatusRequest(model_spec={"name": "versions"}))
    assert [status.version for status in statuses.model_version_status] == [2, 1]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "none"}, "Could not find any versions of model none"),
        ({"name": "tf2", "version": {"value": 9}}, "Could not find version 9 of model tf2"),
    ],
)
def test_status_of_unknown_model_or_version_raises(core: ServerCore, spec: Any, message: str) -> None:
    with pytest.raises(ServingError, match=f"^NOT_FOUND: {message}$"):
        core.status(GetModelStatusRequest(model_spec=spec))


def test_reload_config_without_models_raises(core: ServerCore) -> None:
    with pytest.raises(ServingError, match="must have a model_config_list"):
        core.reload_config(ReloadConfigRequest())
