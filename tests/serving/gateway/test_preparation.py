"""Preparation: the deadline of pictures, and their share of the event loop."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from digit_core.artifact.task_card import DIGITS
from digit_core.errors import DeadlineExceededError, ImageTooLargeError, OverloadedError
from digit_core.images import to_png
from digit_serving.gateway import asgi
from digit_serving.gateway.preparation import Preparation, Scheduler
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.serving.gateway.conftest import request_context

IMAGE = np.pad(np.eye(20, dtype=np.uint8) * 255, 4)
PNG = to_png(IMAGE)
LARGE = np.pad(np.kron(IMAGE, np.ones((36, 36), np.uint8)), 50)
OFF_CENTRE = np.pad(np.eye(10, dtype=np.uint8) * 255, ((2, 16), (2, 16)))


def create_preparation(waited: float = 0.0, max_pixels: int = 2_000_000) -> Preparation:
    """Prepare pictures of a request that arrived `waited` seconds ago; deadline 60 s, queue time 30 s."""
    scheduler = Scheduler(Settings(deadline=60))
    return Preparation(scheduler, max_pixels, request_context(waited=waited))


def prepare(*pictures: bytes | NDArray[np.uint8], **settings: Any) -> list[NDArray[np.uint8]]:
    prepared = create_preparation(**settings)
    return [greenlet_loop.call(prepared.prepare, picture, DIGITS) for picture in pictures]


@pytest.mark.parametrize("large", [to_png(LARGE), LARGE], ids=["file", "array"])
def test_prepare_large_picture_after_queue_time_raises_overloaded(large: Any) -> None:
    assert prepare(large, waited=20)[0].shape == (28, 28)
    with pytest.raises(OverloadedError):
        prepare(large, waited=40)


def test_prepare_later_large_picture_may_wait_until_deadline() -> None:
    prepared = create_preparation(waited=50)
    with pytest.raises(OverloadedError):
        greenlet_loop.call(prepared.prepare, LARGE, DIGITS)
    for waited, error in ((40, None), (70, DeadlineExceededError)):
        scheduler, context = Scheduler(Settings(deadline=60)), request_context(waited=waited)
        context.read_started_at = context.slice_began = time.perf_counter()
        prepared = Preparation(scheduler, 2_000_000, context)
        for method, arguments in ((prepared.prepare, (LARGE, DIGITS)), (prepared.page, (LARGE,))):
            if error is None:
                greenlet_loop.call(method, *arguments)
                continue
            with pytest.raises(error):
                greenlet_loop.call(method, *arguments)


@pytest.mark.parametrize("max_pixels", [10_000, 600_000])
def test_prepare_file_beyond_the_limit_raises_image_too_large(max_pixels: int) -> None:
    with pytest.raises(ImageTooLargeError):
        prepare(to_png(LARGE), max_pixels=max_pixels)


@pytest.mark.parametrize("picture", [LARGE, to_png(LARGE)], ids=["array", "file"])
def test_page_first_large_picture_after_queue_time_raises_overloaded(picture: Any) -> None:
    assert greenlet_loop.call(create_preparation(20).page, picture).levels.ndim == 2
    with pytest.raises(OverloadedError):
        greenlet_loop.call(create_preparation(40).page, picture)


@pytest.mark.parametrize("picture", [OFF_CENTRE, to_png(OFF_CENTRE)], ids=["arrays", "files"])
def test_prepare_many_pictures_yields_to_event_loop(picture: Any) -> None:
    prepared = create_preparation()
    # Normalising a diagonal off the centre takes some 0.2 ms.
    assert iterations_beside(lambda: [prepared.prepare(picture, DIGITS) for _ in range(500)]) >= 2


def iterations_beside(function: Callable[[], object]) -> int:
    """Return the number of iterations of the event loop during a function that `asgi.run` calls."""
    iterations = 0

    async def count_iterations() -> None:
        nonlocal iterations
        while True:
            await asyncio.sleep(0)
            iterations += 1

    async def call_beside_counter() -> None:
        counter = asyncio.create_task(count_iterations())
        try:
            await asgi.run(function)
        finally:
            counter.cancel()

    greenlet_loop.run(call_beside_counter())
    return iterations
