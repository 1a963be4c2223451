"""Predict, GetModelMetadata and GetModelStatus: what they answer, and how they refuse."""

from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.predict_pb2 import PredictRequest

PIXELS = np.full((1, 784), 0.5, np.float32)


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        ({}, "INVALID_ARGUMENT", "Missing ModelSpec"),
        ({"model_spec": {}}, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (
            {"model_spec": {"name": "tf2", "version": {"value": 7}}},
            "NOT_FOUND",
            "Servable not found for request: Specific(tf2, 7)",
        ),
        (
            {"model_spec": {"name": "versions", "version_label": "canary"}},
            "INVALID_ARGUMENT",
            "Unrecognized servable version label: canary",
        ),
        (
            {"model_spec": {"name": "tf2", "signature_name": "nothing"}},
            "FAILED_PRECONDITION",
            'Serving signature key "nothing" not found.',
        ),
        ({"model_spec": {"name": "tf2"}}, "INVALID_ARGUMENT", "input size does not match signature: 0!=1"),
    ],
)
def test_requests_that_fit_no_model(server: Any, request_: Any, code: str, message: str) -> None:
    _refused(server, PredictRequest(**request_), code, message)


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ({"wrong": PIXELS}, [], "input size does not match signature"),
        ({"pixels": PIXELS.astype(np.float64)}, [], "Expects arg[0] to be float but double is provided"),
        ({"pixels": PIXELS[:, :3]}, [], "Matrix size-incompatible: In[0]: [1,3]"),
        ({"pixels": PIXELS}, ["wrong"], "output tensor alias not found in signature: wrong"),
        ({"pixels": PIXELS}, ["probabilities"] * 2, "duplicate output tensor alias: probabilities"),
    ],
)
def test_requests_that_do_not_fit_the_signature(
    server: Any, inputs: dict[str, Any], outputs: list[str], message: str
) -> None:
    request = PredictRequest(model_spec={"name": "tf2"}, output_filter=outputs)
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    _refused(server, request, "INVALID_ARGUMENT", message)


def test_a_tensor_that_is_none(server: Any) -> None:
    request = PredictRequest(model_spec={"name": "tf2"})
    request.inputs["pixels"].CopyFrom(tf.make_tensor_proto(PIXELS))
    request.inputs["pixels"].tensor_shape.dim[0].size = 2
    _refused(server, request, "INVALID_ARGUMENT", "tensor parsing error: pixels")


def test_values_come_in_the_field_of_their_type(server: Any) -> None:
    response = server.predict("tf2", "images", images=np.zeros((2, 28, 28), np.uint8))
    output = response.outputs["probabilities"]
    assert not output.tensor_content
    assert list(output.float_val) == pytest.approx([0.1] * 20)
    assert [dim.size for dim in output.tensor_shape.dim] == [2, 10]


def test_values_of_every_type(server: Any) -> None:
    outputs = server.predict("tf2", "numbers", x=np.array([1.0, 2.0], np.float32)).outputs
    for name, proto in outputs.items():
        array = tf.make_ndarray(proto)
        assert array.dtype == name
        assert array.tolist() == [1, 2]


def test_a_shape_that_differs_from_the_placeholders_is_left_to_the_operations(server: Any) -> None:
    output = server.predict("half_plus_two", x=np.array([2.0], np.float32)).outputs["y"]
    assert list(output.float_val) == [3.0]
    assert [dim.size for dim in output.tensor_shape.dim] == [1]


def test_strings_and_several_outputs(server: Any) -> None:
    inputs = {"text": np.array([b"a", b"\xff"], object), "number": np.array([3, 4])}
    outputs = server.predict("tf2", "many", **inputs).outputs
    assert list(outputs["text"].string_val) == [b"a", b"\xff"]
    assert list(outputs["double"].int64_val) == [6, 8]
    assert list(outputs["odd"].bool_val) == [True, False]
    assert server.predict("tf2", "many", outputs=("odd",), **inputs).outputs.keys() == {"odd"}


def test_short_values_fill_the_shape(server: Any) -> None:
    request = PredictRequest(model_spec={"name": "tf2"})
    request.inputs["pixels"].CopyFrom(tf.make_tensor_proto(0.5, shape=[1, 784]))
    assert len(request.inputs["pixels"].float_val) == 1
    assert len(server.prediction.Predict(request, 5).outputs["probabilities"].float_val) == 10


def test_versions_and_labels(server: Any) -> None:
    for spec, version in (({}, 2), ({"version": {"value": 1}}, 1), ({"version_label": "stable"}, 1)):
        request = PredictRequest(model_spec={"name": "versions", **spec})
        request.inputs["x"].CopyFrom(tf.make_tensor_proto([0.0], tf.float32))
        response = server.prediction.Predict(request, 5)
        assert response.model_spec.version.value == version
        assert list(response.outputs["y"].float_val) == [version]


def test_metadata(server: Any) -> None:
    request = GetModelMetadataRequest(model_spec={"name": "tf2"}, metadata_field=["signature_def"])
    response = server.prediction.GetModelMetadata(request, 5)
    assert (response.model_spec.name, response.model_spec.version.value) == ("tf2", 1)
    signatures = SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert {"serving_default", "images"} <= signatures.signature_def.keys()


@pytest.mark.parametrize(
    ("fields", "message"), [([], "GetModelMetadataRequest must specify"), (["other"], "Metadata field")]
)
def test_metadata_of_other_fields(server: Any, fields: list[str], message: str) -> None:
    request = GetModelMetadataRequest(model_spec={"name": "tf2"}, metadata_field=fields)
    with pytest.raises(grpc.RpcError) as caught:
        server.prediction.GetModelMetadata(request, 5)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert str(caught.value.details()).startswith(message)


def test_status_of_all_versions_is_newest_first(server: Any) -> None:
    statuses = server.models.GetModelStatus(GetModelStatusRequest(model_spec={"name": "versions"}), 5)
    assert [status.version for status in statuses.model_version_status] == [2, 1]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "none"}, "Could not find any versions of model none"),
        ({"name": "tf2", "version": {"value": 9}}, "Could not find version 9 of model tf2"),
    ],
)
def test_status_of_the_unknown(server: Any, spec: Any, message: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        server.models.GetModelStatus(GetModelStatusRequest(model_spec=spec), 5)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.NOT_FOUND, message)


def _refused(server: Any, request: PredictRequest, code: str, message: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        server.prediction.Predict(request, 5)
    assert caught.value.code() is grpc.StatusCode[code]
    assert str(caught.value.details()).startswith(message)
