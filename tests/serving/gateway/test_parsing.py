"""Parsing of requests: query parameters, and bodies of every format, their limits and their errors."""

import base64
import contextlib
import gc
import io
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug import Request
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import HTTPException, UnsupportedMediaType
from werkzeug.test import EnvironBuilder

from digit_core.artifact.task_card import DIGITS, CardInput, TaskCard
from digit_core.errors import ImageError, ImageShapeError, OverloadedError, PixelValueError
from digit_core.images import to_png
from digit_core.tfserving.codec import ModelRef
from digit_serving.gateway.edge.work import Work
from digit_serving.gateway.errors import (
    GatewayError,
    InvalidSelectionError,
    MalformedBodyError,
    TooManyImagesError,
    UnknownModelError,
)
from digit_serving.gateway.parsing import (
    Body,
    BodyParser,
    ModelQuery,
    PredictQuery,
    ReadQuery,
    parse_options,
    parse_selection,
)
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.serving.gateway.helpers import npy, request_context
from tests.serving.gateway.stub_model_server import SHAPES

FLOWERS = Settings(model_names=("flowers",))
SETTINGS = Settings(max_images=4, max_pixels=10_000)
IMAGE = np.pad(np.eye(20, dtype=np.uint8) * 255, 4)
PNG = to_png(IMAGE)
JSON = "application/json"


def parse(
    data: Any,
    content_type: str | None,
    task: TaskCard = DIGITS,
    settings: Settings = SETTINGS,
    waited: float = 0.0,
    content_encoding: str | None = None,
) -> Body:
    """Parse a request for this task that arrived `waited` seconds ago."""
    builder = EnvironBuilder(method="POST", data=data, content_type=content_type)
    if content_encoding:
        builder.headers["Content-Encoding"] = content_encoding
    parser = BodyParser(settings, Work(settings))
    context = request_context(waited=waited)
    try:
        with Request(builder.get_environ()) as request:
            body = greenlet_loop.call(parser.parse, request, context)
            return greenlet_loop.call(parser.to_inputs, body, task, context) if body.instances else body
    finally:
        builder.close()


def asking(query: dict[str, str]) -> Request:
    """Return a request with these query parameters."""
    return Request({"QUERY_STRING": urlencode(query)})


def parse_json(document: Any, task: TaskCard = DIGITS) -> Body:
    return parse(json.dumps(document).encode(), "application/json", task)


def parse_npy(array: np.ndarray, task: TaskCard = DIGITS) -> Body:
    return parse(npy(array), "application/x-npy", task)


@pytest.mark.parametrize(
    ("query", "model"),
    [
        ({}, ModelRef("digits")),
        ({"label": ""}, ModelRef("digits")),
        ({"model": "flowers"}, ModelRef("flowers")),
        ({"model": "flowers", "version": "7"}, ModelRef("flowers", version=7)),
        ({"model": "digits", "label": "canary"}, ModelRef("digits", version_label="canary")),
    ],
)
def test_parse_selection_returns_query_with_model_version_and_label(
    query: dict[str, str], model: ModelRef
) -> None:
    request = asking(query)
    assert parse_selection(ReadQuery, request, FLOWERS) == (parse_options(ReadQuery, request), model)


@pytest.mark.parametrize("name", ["", "Flowers", "../flowers"])
def test_parse_selection_of_model_that_settings_do_not_list_is_unknown(name: str) -> None:
    with pytest.raises(UnknownModelError, match="must be one of: digits, flowers"):
        parse_selection(ModelQuery, asking({"model": name}), FLOWERS)


def test_parse_selection_takes_any_name_of_a_model_for_an_asterisk() -> None:
    settings = Settings(model_names=("flowers", "*"))
    _, model = parse_selection(ModelQuery, asking({"model": "shapes"}), settings)
    assert model == ModelRef("shapes")
    with pytest.raises(UnknownModelError, match="must be one of: digits, flowers"):
        parse_selection(ModelQuery, asking({"model": "../flowers"}), settings)


def test_parse_options_unknown_parameter_has_the_nearest_name() -> None:
    assert parse_options(ModelQuery, asking({"model": "digits"}))["model"] == "digits"
    with pytest.raises(InvalidSelectionError, match=r"`modle`: .* did you mean `model`\? Known: model"):
        parse_options(PredictQuery, asking({"modle": "digits"}))


def test_parse_options_of_query_and_body_are_merged_and_none_comes_twice() -> None:
    request = asking({"min_confidence": "0.5"})
    options = parse_options(ReadQuery, request, {"expect": "##", "box": [[1, 2, 3, 4]]})
    assert (options["min_confidence"], options["expect"], options.parts) == (0.5, "##", 1)
    for body, message in (
        ({"min_confidence": 0.6}, "Field `min_confidence`: it is in the query and in the body"),
        ({"model": "digits"}, "Field `model`: name the model in the query"),
        ({"expct": "##"}, "Field `expct`: there is no such option; did you mean `expect`"),
    ):
        with pytest.raises(InvalidSelectionError, match=message):
            parse_options(ReadQuery, request, body)


@pytest.mark.parametrize("shape", [(64 * 48 * 3,), (48, 64, 3), (64, 48, 3, 1)])
def test_parse_nested_instance_of_other_shape_has_an_error_in_its_place(shape: tuple[int, ...]) -> None:
    right, wrong = np.zeros((64, 48, 3)).tolist(), np.zeros(shape).tolist()
    parsed = parse_json({"instances": [right, wrong, right]}, SHAPES)
    assert len(parsed.content) == 2
    ((index, error),) = parsed.errors.items()
    assert index == 1
    assert isinstance(error, (ImageShapeError, PixelValueError))
    assert str(error) == "an instance must be nested lists of 64×48×3 numbers"


@pytest.mark.parametrize("row", [[], [0.0] * 783, [0.0] * 785, 5, "x", [[0.0] * 784]])
def test_parse_flat_instance_of_other_shape_has_an_error_in_its_place(row: Any) -> None:
    parsed = parse_json({"instances": [[0.5] * 784, row]})
    assert isinstance(parsed.errors[1], ImageShapeError)
    assert len(parsed.content) == 1


@pytest.mark.parametrize("value", [-1e-300, 1 + 1e-15, 1e300, "0.5", None, [0.0], True])
def test_parse_instance_of_other_values_has_an_error_in_its_place(value: Any) -> None:
    parsed = parse_json({"instances": [[0.5] * 784, [0.5] * 783 + [value]]})
    assert isinstance(parsed.errors[1], PixelValueError)
    is_number = type(value) in (int, float)
    assert ("0..1" if is_number else "784 numbers") in str(parsed.errors[1])


def test_parse_json_of_as_many_values_as_allowed_returns_them() -> None:
    most = Settings()
    files = parse(json.dumps({"images": ["data:,"] * 256, "expect": ["1"] * 100_000}), JSON, settings=most)
    assert (len(files), len(files.options["expect"])) == (256, 100_000)
    assert len(parse(json.dumps({"instances": [[0] * 784] * 256}), JSON, settings=most)) == 256
    single = TaskCard("columns", ("a", "b"), CardInput((64, 1, 1), (0, 1)))
    assert not parse_json({"instances": np.zeros((4, 64, 1, 1)).tolist()}, single).errors


def test_parse_files_and_arrays_returns_them_in_every_format() -> None:
    files = [PNG, b"no image", b""]
    texts = [base64.b64encode(file).decode() for file in files]
    parts = {"image": [FileStorage(io.BytesIO(file), "a.png") for file in files]}
    for content_type in ("image/png", "application/octet-stream", None):
        assert parse(PNG, content_type).content == [PNG]
    for prefix in ("", "data:image/png;base64,"):
        assert parse_json({"images": [prefix + text for text in texts]}).content == files
    assert parse(parts, "multipart/form-data").content == files
    arrays = np.arange(2 * 28 * 28).astype(np.uint8).reshape(2, 28, 28)
    for content_type in ("application/x-npy", "application/octet-stream", None):
        for order in (arrays, np.asfortranarray(arrays)):
            assert np.array_equal(np.asarray(parse(npy(order), content_type).content), arrays)


@pytest.mark.parametrize("content_type", ["image/png", "application/json", "multipart/form-data; boundary=x"])
def test_parse_compressed_body_is_refused(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType, match="Send the body without compression"):
        parse(b"x", content_type, content_encoding="identity, gzip")
    assert parse(PNG, "image/png", content_encoding="identity").content == [PNG]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"images": [], "instances": []}',
        b'{"images": []}',
        b'{"images": "x"}',
        b'{"images": [5]}',
        b'{"instances": 5}',
        b'{"instances": [[NaN]]}',
        b"\xff\xfe{\x00}\x00",
        b"[" * 100_000,
    ],
)
def test_parse_malformed_json_raises_malformed_body(body: bytes) -> None:
    with pytest.raises(MalformedBodyError):
        parse(body, "application/json")


def test_parse_array_of_other_shape_or_dtype_raises_image_shape() -> None:
    deep, empty = np.zeros((2, 2, 2, 2, 2), np.uint8), np.zeros((0, 28, 28), np.uint8)
    for array in (IMAGE[None].astype(np.float32), IMAGE, deep, empty):
        with pytest.raises(ImageShapeError, match="uint8"):
            parse_npy(array)


def test_parse_damaged_npy_raises_malformed_body() -> None:
    complete, pickled, huge = npy(IMAGE[None]), io.BytesIO(), io.BytesIO()
    np.save(pickled, np.array([{}]), allow_pickle=True)
    unclosed = complete.replace(b"(1, 28, 28)", b"(1, 28, 28,")
    header = {"descr": "|u1", "fortran_order": False, "shape": (10**12, 28, 28)}
    np.lib.format.write_array_header_1_0(huge, header)
    damaged = [b"", complete[:-1], complete + b"x", complete[:60], unclosed]
    for data in (*damaged, pickled.getvalue(), huge.getvalue()):
        with pytest.raises(MalformedBodyError):
            parse(data, "application/x-npy")


def test_parse_form_that_ends_early_leaves_no_file_open() -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    with pytest.raises(MalformedBodyError):
        parse(part + PNG, "multipart/form-data; boundary=x")
    # An unclosed file would be a warning here, which fails the test.
    gc.collect()


def test_parse_too_many_images_raises_in_every_format() -> None:
    def form(count: int) -> dict[str, Any]:
        return {"image": [FileStorage(io.BytesIO(PNG), "a.png") for _ in range(count)]}

    text = base64.b64encode(PNG).decode()
    parse_in_each_format: list[Callable[[], object]] = [
        lambda: parse_json({"images": [text] * 5}),
        lambda: parse_json({"instances": [[0.0] * 784] * 5}),
        lambda: parse_npy(np.stack([IMAGE] * 5)),
        lambda: parse(form(5), "multipart/form-data"),
    ]
    for parse_in_format in parse_in_each_format:
        with pytest.raises(TooManyImagesError, match="may hold 4 images; this request has 5"):
            parse_in_format()
    with pytest.raises(TooManyImagesError, match="this request has 300"):
        parse(form(300), "multipart/form-data")


def test_parse_other_media_type_or_part_is_refused() -> None:
    with pytest.raises(UnsupportedMediaType, match="image"):
        parse(b"x", "application/x-www-form-urlencoded")
    with pytest.raises(MalformedBodyError, match="image"):
        parse({"photo": FileStorage(io.BytesIO(PNG), "a.png")}, "multipart/form-data")


@given(
    st.binary(max_size=300) | st.binary(max_size=100).map(lambda rest: npy(IMAGE[None])[:90] + rest),
    st.sampled_from(
        ["image/png", "application/json", "application/x-npy", "multipart/form-data; boundary=x"]
    ),
)
def test_parse_any_bytes_returns_pictures_or_raises_known_error(data: bytes, content_type: str) -> None:
    with contextlib.suppress(GatewayError, ImageError, HTTPException):
        parsed = parse(data, content_type)
        assert len(parsed.content) + len(parsed.errors)


def test_parse_long_json_after_queue_time_raises_overloaded() -> None:
    data = json.dumps({"images": ["A" * 1_000_000]}).encode()
    settings = Settings(deadline=60)
    assert len(parse(data, "application/json", settings=settings, waited=20).content) == 1
    with pytest.raises(OverloadedError):
        parse(data, "application/json", settings=settings, waited=40)
