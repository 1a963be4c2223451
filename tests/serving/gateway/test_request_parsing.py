"""Request parsing: every body format, its limits and its errors."""

import base64
import contextlib
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug import Request
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import HTTPException, UnsupportedMediaType
from werkzeug.test import EnvironBuilder

from digit_client import DIGITS, ImageError, ImageShapeError, OverloadedError, PixelValueError, TaskCard
from digit_client.images import to_png
from digit_serving.gateway.errors import GatewayError, MalformedBodyError, TooManyImagesError
from digit_serving.gateway.request_parsing import Pictures, RequestParser
from digit_serving.gateway.scheduling import Scheduler
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.serving.gateway.conftest import SHAPES, npy, request_context

SETTINGS = Settings(max_images=4, max_pixels=10_000)
IMAGE = np.pad(np.eye(20, dtype=np.uint8) * 255, 4)
PNG = to_png(IMAGE)


def parse(
    data: Any,
    content_type: str | None,
    task: TaskCard = DIGITS,
    settings: Settings = SETTINGS,
    waited: float = 0.0,
) -> Pictures:
    """Parse a request for this task that arrived `waited` seconds ago."""
    builder = EnvironBuilder(method="POST", data=data, content_type=content_type)
    parser = RequestParser(settings, Scheduler(settings))
    context = request_context(waited=waited)

    def parse_for_task(request: Request) -> Pictures:
        return parser.pictures(parser.parse(request, context), task, context)

    try:
        with Request(builder.get_environ()) as request:
            return greenlet_loop.call(parse_for_task, request)
    finally:
        builder.close()


def parse_json(document: Any, task: TaskCard = DIGITS) -> Pictures:
    return parse(json.dumps(document).encode(), "application/json", task)


def parse_npy(array: np.ndarray, task: TaskCard = DIGITS) -> Pictures:
    return parse(npy(array), "application/x-npy", task)


def test_parse_instances_returns_float_pixels() -> None:
    pixels = np.random.default_rng(0).random((3, 784), dtype=np.float32)
    parsed = parse_json({"instances": pixels.tolist()})
    assert isinstance(parsed, np.ndarray)
    assert parsed.dtype == np.float32
    assert np.allclose(parsed, pixels)


def test_parse_nested_instances_returns_pixels_of_the_tasks_shape() -> None:
    pixels = np.random.default_rng(0).uniform(-1, 1, (2, 64, 48, 3)).astype(np.float32)
    parsed = parse_json({"instances": pixels.tolist()}, SHAPES)
    assert isinstance(parsed, np.ndarray)
    assert parsed.dtype == np.float32
    assert np.array_equal(parsed, pixels)


@pytest.mark.parametrize(
    "shape", [(64 * 48 * 3,), (64, 48), (64, 48, 1), (48, 64, 3), (64, 48, 3, 1), (1, 64, 48, 3)]
)
def test_parse_nested_instance_of_other_shape_names_the_tasks_shape(shape: tuple[int, ...]) -> None:
    right, wrong = np.zeros((64, 48, 3)).tolist(), np.zeros(shape).tolist()
    expected = "an instance must be nested lists of 64×48×3 numbers"
    with pytest.raises((ImageShapeError, PixelValueError), match=expected) as raised:
        parse_json({"instances": [right, wrong]}, SHAPES)
    assert raised.value.index == 1


def test_parse_nested_instance_with_one_short_row_raises_image_shape() -> None:
    instance = np.zeros((64, 48, 3)).tolist()
    instance[5][7] = [0.0, 0.0]
    with pytest.raises(ImageShapeError):
        parse_json({"instances": [instance]}, SHAPES)


@pytest.mark.parametrize(
    ("value", "message"), [(-1.5, r"-1\.\.1"), (1.01, r"-1\.\.1"), ("0", "64×48×3"), (False, "64×48×3")]
)
def test_parse_nested_instance_of_other_values_raises_pixel_value(value: Any, message: str) -> None:
    instance = np.zeros((64, 48, 3)).tolist()
    instance[63][47][2] = value
    with pytest.raises(PixelValueError, match=message):
        parse_json({"instances": [instance]}, SHAPES)


def test_parse_array_of_the_tasks_shape_returns_it() -> None:
    array = np.random.default_rng(0).integers(0, 256, (2, 64, 48, 3), np.uint8)
    assert np.array_equal(parse_npy(array, SHAPES), array)
    with pytest.raises(ImageShapeError, match=r"uint8 \[n, 64, 48, 3\], not uint8 \[1, 28, 28\]"):
        parse_npy(IMAGE[None], SHAPES)


def test_parse_files_returns_them_in_every_format() -> None:
    files = [PNG, b"no image", b""]
    texts = [base64.b64encode(file).decode() for file in files]
    parts = {"image": [FileStorage(io.BytesIO(file), "a.png") for file in files]}
    assert parse(PNG, "image/png") == [PNG]
    assert parse_json({"images": texts}) == files
    assert parse(parts, "multipart/form-data") == files


def test_parse_npy_returns_its_array() -> None:
    array = np.stack([IMAGE, 255 - IMAGE])
    assert np.array_equal(parse_npy(array), array)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"images": [], "instances": []}',
        b'{"images": []}',
        b'{"images": "x"}',
        b'{"images": ["*"]}',
        b'{"images": [5]}',
        b'{"images": [null]}',
        b'{"instances": []}',
        b'{"instances": 5}',
        b'{"instances": [[NaN]]}',
        b"\xff\xfe{\x00}\x00",
        b"[" * 100_000,
    ],
)
def test_parse_malformed_json_raises_malformed_body(body: bytes) -> None:
    with pytest.raises(MalformedBodyError):
        parse(body, "application/json")


@pytest.mark.parametrize("row", [[], [0.0] * 783, [0.0] * 785, 5, "x", None, [[0.0] * 784]])
def test_parse_instance_of_other_shape_raises_image_shape(row: Any) -> None:
    with pytest.raises(ImageShapeError) as raised:
        parse_json({"instances": [[0.5] * 784, row]})
    assert raised.value.index == 1


@pytest.mark.parametrize("value", [-1e-300, -0.01, 1 + 1e-15, 255, 1e300, "x", "0.5", None, [0.0], True])
def test_parse_instance_of_other_values_raises_pixel_value(value: Any) -> None:
    with pytest.raises(PixelValueError) as raised:
        parse_json({"instances": [[0.5] * 784, [0.5] * 783 + [value]]})
    assert raised.value.index == 1


@pytest.mark.parametrize(
    "array",
    [
        IMAGE[None].astype(np.float32),
        IMAGE,
        np.zeros((1, 28, 27), np.uint8),
        np.zeros((0, 28, 28), np.uint8),
        np.zeros((1, 28, 28, 1), np.uint8),
    ],
)
def test_parse_array_of_other_shape_or_dtype_raises_image_shape(array: np.ndarray) -> None:
    with pytest.raises(ImageShapeError, match="uint8"):
        parse_npy(array)


def test_parse_damaged_npy_raises_malformed_body() -> None:
    complete = npy(IMAGE[None])
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}]), allow_pickle=True)
    unclosed = complete.replace(b"(1, 28, 28)", b"(1, 28, 28,")
    huge = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (10**12, 28, 28)}
    np.lib.format.write_array_header_1_0(huge, header)
    for data in (
        b"",
        b"hello",
        complete[:-1],
        complete + b"x",
        complete[:60],
        unclosed,
        pickled.getvalue(),
        huge.getvalue(),
    ):
        with pytest.raises(MalformedBodyError):
            parse(data, "application/x-npy")


def test_parse_too_many_images_raises_in_every_format() -> None:
    text = base64.b64encode(PNG).decode()
    files = {"image": [FileStorage(io.BytesIO(PNG), "a.png") for _ in range(5)]}
    parse_in_each_format: list[Callable[[], object]] = [
        lambda: parse_json({"images": [text] * 5}),
        lambda: parse_json({"instances": [[0.0] * 784] * 5}),
        lambda: parse_npy(np.stack([IMAGE] * 5)),
        lambda: parse(files, "multipart/form-data"),
    ]
    for parse_in_format in parse_in_each_format:
        with pytest.raises(TooManyImagesError, match="may hold 4 images; this request has 5"):
            parse_in_format()


def test_parse_form_without_image_raises_malformed_body() -> None:
    with pytest.raises(MalformedBodyError, match="image"):
        parse({"photo": FileStorage(io.BytesIO(PNG), "a.png")}, "multipart/form-data")


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/xml", "application/x-www-form-urlencoded"]
)
def test_parse_other_media_type_raises_unsupported_media_type(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType, match="image"):
        parse(b"x", content_type)


@given(
    st.binary(max_size=300) | st.binary(max_size=100).map(lambda rest: npy(IMAGE[None])[:90] + rest),
    st.sampled_from(
        ["image/png", "application/json", "application/x-npy", "multipart/form-data; boundary=x"]
    ),
)
def test_parse_any_bytes_returns_pictures_or_raises_known_error(data: bytes, content_type: str) -> None:
    with contextlib.suppress(GatewayError, ImageError, HTTPException):
        assert len(parse(data, content_type))


def test_parse_long_json_after_queue_time_raises_overloaded() -> None:
    data = json.dumps({"images": ["A" * 1_000_000]}).encode()
    settings = Settings(deadline=60)
    assert len(parse(data, "application/json", settings=settings, waited=20)) == 1
    with pytest.raises(OverloadedError):
        parse(data, "application/json", settings=settings, waited=40)
