import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from digit_client.tfserving import codec
from digit_client.tfserving.codec import ModelRef
from digit_client.tfserving.protos import DT_FLOAT, DT_UINT8, PredictRequest, PredictResponse


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 4), st.just(28), st.just(28))))
def test_images_arrive_as_they_were(images: np.ndarray) -> None:
    sent = PredictRequest.FromString(codec.encode(images, ModelRef()).SerializeToString())
    tensor = sent.inputs["images"]
    assert sent.model_spec.signature_name == "images"
    assert tensor.dtype == DT_UINT8
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    assert np.array_equal(np.frombuffer(tensor.tensor_content, np.uint8).reshape(shape), images)


def test_floats_go_to_the_article_s_signature() -> None:
    pixels = np.random.default_rng(0).random((3, 784), dtype=np.float32)
    request = codec.encode(pixels, ModelRef())
    tensor = request.inputs["pixels"]
    assert request.model_spec.signature_name == "serving_default"
    assert tensor.dtype == DT_FLOAT
    assert np.array_equal(np.frombuffer(tensor.tensor_content, np.float32).reshape(3, 784), pixels)


@pytest.mark.parametrize(
    ("model", "version", "label"),
    [(ModelRef(), 0, ""), (ModelRef(version=3), 3, ""), (ModelRef(label="stable"), 0, "stable")],
)
def test_the_request_names_the_model(model: ModelRef, version: int, label: str) -> None:
    spec = codec.encode(np.zeros((1, 28, 28), np.uint8), model).model_spec
    assert (spec.name, spec.version.value, spec.version_label) == ("digits", version, label)


def test_a_model_is_named_by_version_or_label() -> None:
    with pytest.raises(ValueError, match="not both"):
        ModelRef(version=1, label="stable")


def _response(*, content: bool, dtype: int = DT_FLOAT, columns: int = 10) -> PredictResponse:
    response = PredictResponse()
    response.model_spec.version.value = 5
    tensor = response.outputs["probabilities"]
    tensor.dtype = dtype
    for size in (2, columns):
        tensor.tensor_shape.dim.add(size=size)
    values = np.arange(2 * columns, dtype=np.float32)
    if content:
        tensor.tensor_content = values.tobytes()
    else:
        tensor.float_val.extend(values.tolist())
    return response


@pytest.mark.parametrize("content", [True, False])
def test_both_forms_of_a_tensor_are_read(content: bool) -> None:
    probabilities, version = codec.decode(_response(content=content))
    assert version == 5
    assert probabilities.dtype == np.float32
    assert np.array_equal(probabilities, np.arange(20, dtype=np.float32).reshape(2, 10))


@pytest.mark.parametrize(
    "response",
    [
        PredictResponse(),
        _response(content=True, dtype=DT_UINT8),
        _response(content=True, columns=9),
    ],
)
def test_another_answer_is_refused(response: PredictResponse) -> None:
    with pytest.raises(ValueError, match=r"output|expected"):
        codec.decode(response)


def test_a_tensor_shorter_than_its_shape_is_refused() -> None:
    response = _response(content=False)
    del response.outputs["probabilities"].float_val[-1]
    with pytest.raises(ValueError, match="reshape"):
        codec.decode(response)
