import base64
import contextlib
import io
import json
import time
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

from digit_client import (
    DeadlineExceededError,
    ImageError,
    ImageShapeError,
    ImageTooLargeError,
    NoDigitError,
    NotAnImageError,
    OverloadedError,
    PixelValueError,
    TruncatedImageError,
)
from digit_client.images import to_png
from digit_serving.gateway.context import RequestContext
from digit_serving.gateway.errors import GatewayError, MalformedBodyError, TooManyImagesError
from digit_serving.gateway.request_parsing import RequestParser
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop

SETTINGS = Settings(max_images=4, max_pixels=10_000)
IMAGE = np.pad(np.eye(20, dtype=np.uint8) * 255, 4)
PNG = to_png(IMAGE)


def read(data: Any, content_type: str | None) -> np.ndarray:
    builder = EnvironBuilder(method="POST", data=data, content_type=content_type)
    now = time.perf_counter()
    record = RequestContext("id", "/v1/predict", "POST", started=now, begun=now)
    try:
        with Request(builder.get_environ()) as request:
            return greenlet_loop.call(RequestParser(SETTINGS).read, request, record)
    finally:
        builder.close()


def read_json(document: Any) -> np.ndarray:
    return read(json.dumps(document).encode(), "application/json")


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def read_npy(array: np.ndarray) -> np.ndarray:
    return read(npy(array), "application/x-npy")


def test_numbers_stay_numbers() -> None:
    pixels = np.random.default_rng(0).random((3, 784), dtype=np.float32)
    batch = read_json({"instances": pixels.tolist()})
    assert batch.dtype == np.float32
    assert np.allclose(batch, pixels)


def test_images_become_framed_images() -> None:
    batch = read(PNG, "image/png")
    assert batch.dtype == np.uint8
    assert np.array_equal(batch, IMAGE[None])


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", NotAnImageError),
        (b"hello", NotAnImageError),
        (PNG[:40], TruncatedImageError),
        (to_png(np.zeros((28, 28), np.uint8)), NoDigitError),
        (to_png(np.zeros((200, 200), np.uint8)), ImageTooLargeError),
    ],
)
def test_an_image_that_is_none_is_refused(data: bytes, error: type[ImageError]) -> None:
    forms: list[Callable[[], object]] = [
        lambda: read(data, "image/png"),
        lambda: read_json({"images": [base64.b64encode(data).decode()]}),
        lambda: read({"image": FileStorage(io.BytesIO(data), "a.png")}, "multipart/form-data"),
    ]
    for refused in forms:
        with pytest.raises(error) as raised:
            refused()
        assert raised.value.index == 0


def test_the_refused_image_is_named() -> None:
    images = [base64.b64encode(data).decode() for data in (PNG, PNG, b"hello")]
    with pytest.raises(NotAnImageError) as raised:
        read_json({"images": images})
    assert raised.value.index == 2


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
def test_a_body_that_is_not_what_it_says_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedBodyError):
        read(body, "application/json")


@pytest.mark.parametrize("row", [[], [0.0] * 783, [0.0] * 785, 5, "x", None, [[0.0] * 784]])
def test_an_instance_of_another_shape_is_refused(row: Any) -> None:
    with pytest.raises(ImageShapeError) as raised:
        read_json({"instances": [[0.5] * 784, row]})
    assert raised.value.index == 1


@pytest.mark.parametrize("value", [-1e-300, -0.01, 1 + 1e-15, 255, 1e300, "x", "0.5", None, [0.0], True])
def test_an_instance_of_other_numbers_is_refused(value: Any) -> None:
    with pytest.raises(PixelValueError) as raised:
        read_json({"instances": [[0.5] * 784, [0.5] * 783 + [value]]})
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
def test_an_array_of_another_kind_is_refused(array: np.ndarray) -> None:
    with pytest.raises(ImageShapeError, match="uint8"):
        read_npy(array)


def test_a_file_that_is_no_array_is_refused() -> None:
    whole = npy(IMAGE[None])
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}]), allow_pickle=True)
    torn = whole.replace(b"(1, 28, 28)", b"(1, 28, 28,")
    huge = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (10**12, 28, 28)}
    np.lib.format.write_array_header_1_0(huge, header)
    for data in (
        b"",
        b"hello",
        whole[:-1],
        whole + b"x",
        whole[:60],
        torn,
        pickled.getvalue(),
        huge.getvalue(),
    ):
        with pytest.raises(MalformedBodyError):
            read(data, "application/x-npy")


def test_too_many_images_are_refused_in_every_form() -> None:
    text = base64.b64encode(PNG).decode()
    files = {"image": [FileStorage(io.BytesIO(PNG), "a.png") for _ in range(5)]}
    forms: list[Callable[[], object]] = [
        lambda: read_json({"images": [text] * 5}),
        lambda: read_json({"instances": [[0.0] * 784] * 5}),
        lambda: read_npy(np.stack([IMAGE] * 5)),
        lambda: read(files, "multipart/form-data"),
    ]
    for refused in forms:
        with pytest.raises(TooManyImagesError, match="may hold 4 images; this one has 5"):
            refused()


def test_a_form_without_an_image_is_refused() -> None:
    with pytest.raises(MalformedBodyError, match="image"):
        read({"photo": FileStorage(io.BytesIO(PNG), "a.png")}, "multipart/form-data")


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/xml", "application/x-www-form-urlencoded"]
)
def test_other_media_types_are_refused(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType, match="image"):
        read(b"x", content_type)


@given(
    st.binary(max_size=300) | st.binary(max_size=100).map(lambda rest: npy(IMAGE[None])[:90] + rest),
    st.sampled_from(
        ["image/png", "application/json", "application/x-npy", "multipart/form-data; boundary=x"]
    ),
)
def test_any_body_is_read_or_refused(data: bytes, content_type: str) -> None:
    with contextlib.suppress(GatewayError, ImageError, HTTPException):
        assert len(read(data, content_type))


LARGE = to_png(np.pad(np.kron(IMAGE, np.ones((36, 36), np.uint8)), 50))


def read_after(seconds: float, *files: bytes) -> np.ndarray:
    """Read a request that arrived so many seconds ago and has a minute, half of it to begin."""
    reader = RequestParser(Settings(max_pixels=2_000_000, deadline=60))
    document = json.dumps({"images": [base64.b64encode(file).decode() for file in files]})
    builder = EnvironBuilder(method="POST", data=document, content_type="application/json")
    arrived = time.perf_counter() - seconds
    record = RequestContext("id", "/v1/predict", "POST", started=arrived, begun=arrived)
    try:
        with Request(builder.get_environ()) as request:
            return greenlet_loop.call(reader.read, request, record)
    finally:
        builder.close()


def test_large_picture_that_waited_too_long_to_begin_is_overload() -> None:
    assert read_after(20, LARGE).shape == (1, 28, 28)
    with pytest.raises(OverloadedError):
        read_after(40, LARGE)


def test_large_picture_after_the_first_has_until_the_deadline() -> None:
    assert read_after(40, PNG, LARGE).shape == (2, 28, 28)
    with pytest.raises(DeadlineExceededError):
        read_after(70, PNG, LARGE)
