"""What is fuzzed: functions that take any bytes, and refuse them by errors of their own if at all."""

import asyncio
import io
import time
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from google.protobuf.message import DecodeError
from werkzeug import Request
from werkzeug.exceptions import HTTPException

from digit_client import ImageError, _types, images
from digit_client.tfserving import codec
from digit_client.tfserving.protos import PredictResponse
from digit_serving.gateway import asgi
from digit_serving.gateway.context import RequestContext
from digit_serving.gateway.errors import GatewayError
from digit_serving.gateway.request_parsing import RequestParser
from digit_serving.gateway.settings import Settings

_MOST_PIXELS = 50_000
_READER = RequestParser(Settings(max_images=4, max_pixels=_MOST_PIXELS, max_body=100_000))
_LOOP = asyncio.new_event_loop()
_TYPES = ("application/json", "application/x-npy", "multipart/form-data; boundary=x", "image/*")


def image(data: bytes) -> None:
    """An image file."""
    with suppress(ImageError):
        found = images.normalise(images.decode(data, max_pixels=_MOST_PIXELS))
        assert found.shape == (28, 28)
        assert found.dtype == np.uint8


def body(data: bytes) -> None:
    """A request's body, whose first byte chooses its type."""
    kind, data = data[:1], data[1:]
    environment = {
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": _TYPES[sum(kind) % len(_TYPES)],
        "CONTENT_LENGTH": str(len(data)),
        "wsgi.input": io.BytesIO(data),
    }
    now = time.perf_counter()
    record = RequestContext("id", "/v1/predict", "POST", started=now, begun=now)
    with suppress(GatewayError, ImageError, HTTPException), Request(environment) as request:
        batch = _LOOP.run_until_complete(asgi.run(_READER.read, request, record))
        assert batch.shape[1:] in ((28, 28), (784,))
        assert np.isfinite(batch).all()


def answer(data: bytes) -> None:
    """A model server's answer."""
    with suppress(ValueError, DecodeError):
        for prediction in _types.decode(*codec.decode(PredictResponse.FromString(data))):
            assert 0 <= prediction.digit <= 9
            assert 0 <= prediction.confidence <= 1.001


TARGETS: dict[str, Callable[[bytes], None]] = {"image": image, "body": body, "answer": answer}
