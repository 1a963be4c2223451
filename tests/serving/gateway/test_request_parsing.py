"""Request parsing: every body format, its limits and its errors."""

import asyncio
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
from digit_serving.gateway import asgi
from digit_serving.gateway.errors import GatewayError, MalformedBodyError, TooManyImagesError
from digit_serving.gateway.request_parsing import RequestParser
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.serving.gateway.conftest import npy, request_context

SETTINGS = Settings(max_images=4, max_pixels=10_000)
IMAGE = np.pad(np.eye(20, dtype=np.uint8) * 255, 4)
PNG = to_png(IMAGE)
LARGE = to_png(np.pad(np.kron(IMAGE, np.ones((36, 36), np.uint8)), 50))


def parse(
    data: Any, content_type: str | None, settings: Settings = SETTINGS, waited: float = 0.0
) -> np.ndarray:
    """Parse a request that arrived `waited` seconds ago."""
    builder = EnvironBuilder(method="POST", data=data, content_type=content_type)
    try:
        with Request(builder.get_environ()) as request:
            return greenlet_loop.call(RequestParser(settings).parse, request, request_context(waited=waited))
    finally:
        builder.close()


def parse_json(document: Any) -> np.ndarray:
    return parse(json.dumps(document).encode(), "application/json")


def parse_npy(array: np.ndarray) -> np.ndarray:
    return parse(npy(array), "application/x-npy")


def test_parse_instances_returns_float_pixels() -> None:
    pixels = np.random.default_rng(0).random((3, 784), dtype=np.float32)
    batch = parse_json({"instances": pixels.tolist()})
    assert batch.dtype == np.float32
    assert np.allclose(batch, pixels)


def test_parse_normalized_image_returns_it_unchanged() -> None:
    batch = parse(PNG, "image/png")
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
def test_parse_unusable_image_raises_image_error_in_every_format(
    data: bytes, error: type[ImageError]
) -> None:
    parse_in_each_format: list[Callable[[], object]] = [
        lambda: parse(data, "image/png"),
        lambda: parse_json({"images": [base64.b64encode(data).decode()]}),
        lambda: parse({"image": FileStorage(io.BytesIO(data), "a.png")}, "multipart/form-data"),
    ]
    for parse_in_format in parse_in_each_format:
        with pytest.raises(error) as raised:
            parse_in_format()
        assert raised.value.index == 0


def test_parse_unusable_image_sets_its_index() -> None:
    images = [base64.b64encode(data).decode() for data in (PNG, PNG, b"hello")]
    with pytest.raises(NotAnImageError) as raised:
        parse_json({"images": images})
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
def test_parse_any_bytes_returns_batch_or_raises_known_error(data: bytes, content_type: str) -> None:
    with contextlib.suppress(GatewayError, ImageError, HTTPException):
        assert len(parse(data, content_type))


def parse_after(seconds: float, *files: bytes) -> np.ndarray:
    """Parse a request that arrived `seconds` ago, with a deadline of 60 s and a queue time of 30 s."""
    document = json.dumps({"images": [base64.b64encode(file).decode() for file in files]})
    settings = Settings(max_pixels=2_000_000, deadline=60)
    return parse(document.encode(), "application/json", settings, seconds)


def test_parse_large_picture_after_queue_time_raises_overloaded() -> None:
    assert parse_after(20, LARGE).shape == (1, 28, 28)
    with pytest.raises(OverloadedError):
        parse_after(40, LARGE)


def test_parse_later_large_picture_may_wait_until_deadline() -> None:
    assert parse_after(40, PNG, LARGE).shape == (2, 28, 28)
    with pytest.raises(DeadlineExceededError):
        parse_after(70, PNG, LARGE)


@pytest.mark.parametrize("content_type", ["application/x-npy", "application/json"])
def test_parse_many_images_yields_to_event_loop(content_type: str) -> None:
    # Normalising a diagonal off the centre takes some 0.2 ms.
    images = np.stack([np.pad(np.eye(10, dtype=np.uint8) * 255, ((2, 16), (2, 16)))] * 500)
    texts = [base64.b64encode(to_png(image)).decode() for image in images]
    data = npy(images) if content_type == "application/x-npy" else json.dumps({"images": texts}).encode()
    iterations = 0

    async def count_iterations() -> None:
        nonlocal iterations
        while True:
            await asyncio.sleep(0)
            iterations += 1

    async def parse_beside_counter() -> np.ndarray:
        counter = asyncio.create_task(count_iterations())
        try:
            environ = EnvironBuilder(method="POST", data=data, content_type=content_type).get_environ()
            with Request(environ) as request:
                return await asgi.run(
                    RequestParser(Settings(max_images=500)).parse, request, request_context()
                )
        finally:
            counter.cancel()

    assert greenlet_loop.run(parse_beside_counter()).shape == (500, 28, 28)
    assert iterations >= 2
