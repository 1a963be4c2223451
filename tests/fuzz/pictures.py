"""Targets that decode pictures, alone and in the bodies of requests."""

import asyncio
import atexit
import io
import time
from contextlib import suppress

import numpy as np
from werkzeug import Request
from werkzeug.exceptions import HTTPException

from digit_core import images
from digit_core.artifact.task_card import DIGITS, CardInput, CardPreparation, TaskCard
from digit_core.errors import ImageError
from digit_core.images import Page
from digit_core.recognition import Prepare
from digit_serving.gateway import bridge
from digit_serving.gateway.edge.work import Work
from digit_serving.gateway.errors import GatewayError
from digit_serving.gateway.parsing import Body, BodyParser
from digit_serving.gateway.request import RequestContext
from digit_serving.gateway.settings import Settings

_MAX_PIXELS = 50_000
_SETTINGS = Settings(max_images=4, max_pixels=_MAX_PIXELS, max_body=100_000)
_WORK = Work(_SETTINGS)
_PARSER = BodyParser(_SETTINGS, _WORK)
_PHOTOS = TaskCard("photos", ("day", "night"), CardInput((9, 12, 3), (-1.0, 1.0)), CardPreparation(fit="pad"))
_LOOP = asyncio.new_event_loop()
atexit.register(_LOOP.close)
_CONTENT_TYPES = ("application/json", "application/x-npy", "multipart/form-data; boundary=x", "image/*")


def image(data: bytes) -> None:
    """Decode an image file and prepare it for two tasks."""
    for task in (_PHOTOS, DIGITS):
        with suppress(ImageError, images.NoInkError):
            found = images.prepare(images.decode(data, max_pixels=_MAX_PIXELS), task)
            assert found.shape == task.shape
            assert found.dtype == np.uint8


def body(data: bytes) -> None:
    """Parse a request body and prepare its pictures. The first byte selects the content type and the task."""
    selector, data = data[:1], data[1:]
    task = _PHOTOS if sum(selector) >= 128 else DIGITS
    environment = {
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": _CONTENT_TYPES[sum(selector) % len(_CONTENT_TYPES)],
        "CONTENT_LENGTH": str(len(data)),
        "wsgi.input": io.BytesIO(data),
    }
    now = time.monotonic()
    context = RequestContext("id", "/v1/predict", "POST", now, now, now + 30, now + 60)

    def parse(request: Request) -> Body:
        body = _PARSER.parse(request, context)
        return _PARSER.to_inputs(body, task, context) if body.instances else body

    with suppress(GatewayError, ImageError, HTTPException), Request(environment) as request:
        pictures = _LOOP.run_until_complete(bridge.run(parse, request))
        assert len(pictures.content) + len(pictures.errors)
        if isinstance(pictures.content, np.ndarray) and pictures.content.dtype == np.float32:
            assert pictures.content.shape[1:] == task.instance_shape
            assert np.isfinite(pictures.content).all()
            return
        for picture in pictures.content:
            with suppress(ImageError, images.NoInkError):
                if not isinstance(picture, Exception):
                    prepare = bridge.run(
                        _WORK.answer, context, Prepare(picture, None if task is DIGITS else task)
                    )
                    prepared = _LOOP.run_until_complete(prepare)
                    assert not isinstance(prepared, list)
                    assert isinstance(prepared, Page) or prepared.shape == task.shape
