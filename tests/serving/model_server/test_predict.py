"""Predict, metadata and status, as the core answers them: selection, signatures, tensors and errors."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.tensor_shape_pb2 import TensorShapeProto
from tensorflow.core.framework.types_pb2 import DT_FLOAT, DT_HALF, DT_INT64, DT_STRING, DT_UINT8
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from digit_serving.errors import ServingError
from digit_serving.model_server.core import ServerCore
from tests.serving.model_servers import predict_request, running_core

PIXELS = np.full((1, 784), 0.5, np.float32)
VALUES = {
    DT_FLOAT: "float_val",
    DT_HALF: "half_val",
    DT_INT64: "int64_val",
    DT_STRING: "string_val",
    DT_UINT8: "int_val",
}
"""Field of a TensorProto that has the values, by type."""


def unfit(model: str = "tf2", outputs: str = "", shape: Any = None, **fields: Any) -> PredictRequest:
    """Return a request for `pixels`, with another `model_spec`, input, output_filter or tensor_shape."""
    spec, inputs = fields.pop("spec", {"name": model}), fields or {"pixels": PIXELS}
    request = predict_request("", "", tuple(outputs.split()), **inputs)
    request.ClearField("model_spec")
    if spec is not None:
        request.model_spec.CopyFrom(ModelSpec(**spec))
    if shape:
        request.inputs["pixels"].tensor_shape.MergeFrom(TensorShapeProto(**shape))
    return request


@pytest.fixture(scope="module")
def batching_core(saved_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerCore]:
    """Core of the perceptron that batches up to eight rows."""
    file = tmp_path_factory.mktemp("batching") / "batching.config"
    file.write_text("max_batch_size { value: 8 } allowed_batch_sizes: [4, 8]")
    flags = ("--enable_batching", f"--batching_parameters_file={file}")
    with running_core(f"--model_base_path={saved_models / 'tf2'}", *flags) as core:
        yield core


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (unfit(spec=None), "INVALID_ARGUMENT: Missing ModelSpec"),
        (unfit(spec={}), "INVALID_ARGUMENT: ModelSpec has no name specified."),
        (unfit(spec={"name": "tf2", "signature_name": "none"}), 'FAILED_PRECONDITION: .* "none" not found.'),
        (unfit(wrong=PIXELS), r"INVALID_ARGUMENT: .* missing: \['pixels'\], unexpected: \['wrong'\]"),
        (unfit(pixels=PIXELS, wrong=PIXELS), r"INVALID_ARGUMENT: .* missing: \[\], unexpected: \['wrong'\]"),
        (
            unfit(spec={"name": "tf2", "signature_name": "many"}, number=PIXELS),
            r"INVALID_ARGUMENT: .* missing: \['text'\], unexpected: \[\]",
        ),
        (unfit(pixels=PIXELS.astype(np.float64)), "INVALID_ARGUMENT: input pixels must be float, not double"),
        (unfit(pixels=PIXELS[:, :3]), r"INVALID_ARGUMENT: Matrix size-incompatible: In\[0\]: \[1,3\]"),
        (unfit(outputs="wrong"), "INVALID_ARGUMENT: output tensor alias not found in signature: wrong"),
        (unfit(outputs="probabilities " * 2), "INVALID_ARGUMENT: duplicate output tensor alias: prob"),
        (unfit(shape={"dim": [{"size": 2}]}), "INVALID_ARGUMENT: tensor parsing error: pixels"),
        (unfit(shape={"unknown_rank": True}), "INVALID_ARGUMENT: tensor parsing error: pixels"),
    ],
)
def test_predict_unfit_request_raises(core: ServerCore, request_: PredictRequest, error: str) -> None:
    with pytest.raises(ServingError, match=f"^{error}"):
        core.predict(request_)


def filled(signature: str, **inputs: tuple[int, Any, list[int]]) -> PredictRequest:
    """Return a request whose inputs have one value, or none, for their shape."""
    request = PredictRequest(model_spec={"name": "tf2", "signature_name": signature})
    for name, (dtype, value, shape) in inputs.items():
        field = {} if value is None else {VALUES[dtype]: [value]}
        sizes = {"dim": [{"size": size} for size in shape]}
        request.inputs[name].CopyFrom(TensorProto(dtype=dtype, tensor_shape=sizes, **field))
    return request


@pytest.mark.parametrize(
    "request_",
    [
        filled("", pixels=(DT_FLOAT, 0.5, [21_400, 784])),
        filled("", pixels=(DT_FLOAT, None, [21_400, 784])),
        filled("none", pixels=(DT_HALF, 1, [21_400, 784])),
        filled("", **{f"x{index}": (DT_FLOAT, 0.5, [6_000, 784]) for index in range(4)}),
        filled("images", images=(DT_UINT8, 5, [16_385, 28, 28])),
        filled("images", images=(DT_UINT8, 5, [1, 600_000, 1])),
        filled("images", images=(DT_UINT8, None, [16_385, 0, 0])),
        filled("total", x=(DT_FLOAT, None, [600_000, 0])),
        filled("total", x=(DT_FLOAT, 1.0, [600_000])),
        filled("total", x=(DT_FLOAT, 1.0, [2**62] * 1000)),
        filled("many", text=(DT_STRING, b"a" * 10**6, [100]), number=(DT_INT64, 1, [100])),
    ],
)
def test_predict_tensors_beyond_the_limit_raises_before_they_are_made(
    core: ServerCore, request_: PredictRequest
) -> None:
    message = r"^INVALID_ARGUMENT: The request counts as (\S+) bytes; at most 67,108,864 are allowed"
    with pytest.raises(ServingError, match=message):
        core.predict(request_)


def test_predict_tensor_within_the_limit_is_filled(core: ServerCore) -> None:
    request = filled("", pixels=(DT_FLOAT, 0.5, [21_000, 784]))
    assert request.ByteSize() < 50
    assert len(core.predict(request).outputs["probabilities"].float_val) == 210_000
    number, text = (DT_INT64, 1, [1000]), (DT_STRING, b"a" * 10_000, [1000])
    assert len(core.predict(filled("many", text=text, number=number)).outputs["text"].string_val) == 1000


@pytest.mark.parametrize(("limit", "accepts"), [("3000", False), ("4000", True), ("-1", True), ("no", True)])
def test_predict_limit_is_that_of_messages(saved_models: Path, limit: str, accepts: bool) -> None:
    flag = f"--grpc_channel_arguments=grpc.max_receive_message_length={limit}"
    refusal = pytest.raises(ServingError, match="at most 3,000 are allowed")
    with (
        running_core(f"--model_base_path={saved_models / 'tf2'}", flag) as core,
        nullcontext() if accepts else refusal,
    ):
        core.predict(predict_request("default", pixels=PIXELS))


@pytest.mark.parametrize("looks", [0, 1, 2])
def test_predict_without_time_left_starts_no_further_work(core: ServerCore, looks: int) -> None:
    """The time is over at the `looks`-th look at it, and the model would compute for ever."""
    left = iter([10.0] * looks)
    request = predict_request("tf2", "wait", seconds=np.array([0.0 if looks == 2 else 1e9], np.float32))
    with pytest.raises(ServingError, match="DEADLINE_EXCEEDED: Deadline exceeded"):
        core.predict(request, lambda: next(left, 0.0))


@pytest.mark.parametrize(
    ("signature", "inputs", "error"),
    [
        ("", {"pixels": np.zeros((9, 784), np.float32)}, "INVALID_ARGUMENT: 9 rows exceed max_batch_size, 8"),
        ("", {"pixels": PIXELS[:0]}, "INVALID_ARGUMENT: batched inputs must have"),
        ("", {"pixels": np.float32(1)}, "INVALID_ARGUMENT: batched inputs must have"),
        ("many", {"text": ["a"], "number": np.array([1, 2])}, "INVALID_ARGUMENT: batched inputs must have"),
        ("total", {"x": np.ones(2, np.float32)}, "FAILED_PRECONDITION: batched outputs must have"),
    ],
)
def test_predict_that_fits_no_batch_raises(
    batching_core: ServerCore, signature: str, inputs: dict[str, Any], error: str
) -> None:
    with pytest.raises(ServingError, match=f"^{error}"):
        batching_core.predict(predict_request("default", signature, **inputs))
    fitting = predict_request("default", pixels=np.zeros((8, 784), np.float32))
    assert len(batching_core.predict(fitting).outputs["probabilities"].float_val) == 80


def test_predict_outputs_of_every_type_are_readable(core: ServerCore) -> None:
    outputs = core.predict(predict_request("tf2", "numbers", x=np.array([1.0, 2.0], np.float32))).outputs
    for name, proto in outputs.items():
        array = tf.make_ndarray(proto)
        assert array.dtype == name
        assert array.tolist() == [1, 2]


@pytest.mark.parametrize("as_content", [True, False])
def test_predict_answers_with_tensor_content_if_the_flag_says_so(
    saved_models: Path, as_content: bool
) -> None:
    flag = f"--enable_serialization_as_tensor_content={as_content}"
    with running_core(f"--model_base_path={saved_models / 'half_plus_two'}", flag) as core:
        output = core.predict(predict_request("default", x=np.array([0.0], np.float32))).outputs["y"]
    assert tf.make_ndarray(output).tolist() == [2.0]
    assert (bool(output.tensor_content), bool(output.float_val)) == (as_content, not as_content)


def test_predict_strings_and_output_filter(core: ServerCore) -> None:
    inputs: dict[str, Any] = {"text": np.array([b"a", b"\xff"], object), "number": np.array([3, 4])}
    outputs = core.predict(predict_request("tf2", "many", **inputs)).outputs
    assert list(outputs["text"].string_val) == [b"a", b"\xff"]
    assert list(outputs["double"].int64_val) == [6, 8]
    assert list(outputs["odd"].bool_val) == [True, False]
    assert core.predict(predict_request("tf2", "many", ("odd",), **inputs)).outputs.keys() == {"odd"}


def test_predict_single_value_fills_the_shape(core: ServerCore) -> None:
    request = PredictRequest(model_spec={"name": "tf2"})
    request.inputs["pixels"].CopyFrom(tf.make_tensor_proto(0.5, shape=[1, 784]))
    assert len(request.inputs["pixels"].float_val) == 1
    assert len(core.predict(request).outputs["probabilities"].float_val) == 10


def test_metadata_of_other_fields_raises(core: ServerCore) -> None:
    for fields in ([], ["other"]):
        request = GetModelMetadataRequest(model_spec={"name": "tf2"}, metadata_field=fields)
        with pytest.raises(ServingError, match="INVALID_ARGUMENT: metadata_field must be signature_def"):
            core.metadata(request)


def test_status_lists_versions_newest_first(core: ServerCore) -> None:
    statuses = core.status(GetModelStatusRequest(model_spec={"name": "versions"}))
    assert [status.version for status in statuses.model_version_status] == [2, 1]
