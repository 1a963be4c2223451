"""Image processing: pictures to the model's input, its errors, and its share of the event loop."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from digit_client import (
    DIGITS,
    DeadlineExceededError,
    ImageError,
    ImageTooLargeError,
    NotAnImageError,
    OverloadedError,
    TaskCard,
    TruncatedImageError,
)
from digit_client.images import Candidates, to_png
from digit_serving.gateway import asgi
from digit_serving.gateway.image_processing import ImageProcessor, ModelInput
from digit_serving.gateway.request_parsing import Pictures
from digit_serving.gateway.scheduling import Scheduler
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.serving.gateway.conftest import request_context

IMAGE = np.pad(np.eye(20, dtype=np.uint8) * 255, 4)
PNG = to_png(IMAGE)
LARGE = to_png(np.pad(np.kron(IMAGE, np.ones((36, 36), np.uint8)), 50))
BLANK = np.zeros((28, 28), np.uint8)
OFF_CENTRE = np.pad(np.eye(10, dtype=np.uint8) * 255, ((2, 16), (2, 16)))


def create_processor(**settings: Any) -> ImageProcessor:
    parsed = Settings(**settings)
    return ImageProcessor(parsed, Scheduler(parsed))


def prepare(pictures: Pictures, task: TaskCard = DIGITS, waited: float = 0.0, **settings: Any) -> ModelInput:
    """Prepare the pictures of a request that arrived `waited` seconds ago."""
    processor = create_processor(**settings)
    return greenlet_loop.call(processor.prepare, pictures, task, request_context(waited=waited))


def test_prepare_normalized_picture_returns_it_unchanged() -> None:
    for pictures in ([PNG], IMAGE[None]):
        batch = prepare(pictures).batch
        assert batch.dtype == np.uint8
        assert np.array_equal(batch, IMAGE[None])


def test_prepare_floats_returns_them_unchanged() -> None:
    pixels = np.random.default_rng(0).random((3, 784), dtype=np.float32)
    result = prepare(pixels)
    assert np.array_equal(result.batch, pixels)
    assert not result.missing
    assert not result.prepared


def test_prepare_arrays_lists_those_not_in_the_models_form() -> None:
    result = prepare(np.stack([IMAGE, OFF_CENTRE, IMAGE, BLANK]))
    assert list(result.prepared) == [1, 3]
    assert list(result.missing) == [3]


def test_prepare_files_lists_those_without_a_digit() -> None:
    result = prepare([PNG, to_png(BLANK), PNG])
    assert list(result.prepared) == [0, 1, 2]
    assert list(result.missing) == [1]
    assert result.batch.shape == (3, 28, 28)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", NotAnImageError),
        (b"hello", NotAnImageError),
        (PNG[:40], TruncatedImageError),
        (to_png(np.zeros((200, 200), np.uint8)), ImageTooLargeError),
    ],
)
def test_prepare_unusable_image_raises_image_error_with_index(data: bytes, error: type[ImageError]) -> None:
    for index in (0, 2):
        with pytest.raises(error) as raised:
            prepare([PNG] * index + [data], max_pixels=10_000)
        assert raised.value.index == index


def prepare_after(seconds: float, *files: bytes) -> ModelInput:
    """Prepare the files of a request that arrived `seconds` ago; deadline 60 s, queue time 30 s."""
    return prepare(files, waited=seconds, max_pixels=2_000_000, deadline=60)


def test_prepare_large_picture_after_queue_time_raises_overloaded() -> None:
    assert prepare_after(20, LARGE).batch.shape == (1, 28, 28)
    with pytest.raises(OverloadedError):
        prepare_after(40, LARGE)


def test_prepare_later_large_picture_may_wait_until_deadline() -> None:
    assert prepare_after(40, PNG, LARGE).batch.shape == (2, 28, 28)
    with pytest.raises(DeadlineExceededError):
        prepare_after(70, PNG, LARGE)


def segment_after(seconds: float, index: int) -> Candidates:
    """Segment a file of a request that arrived `seconds` ago; deadline 60 s, queue time 30 s."""
    processor = create_processor(deadline=60)
    return greenlet_loop.call(processor.segment, [PNG] * 2, index, DIGITS, request_context(waited=seconds))


def test_segment_first_picture_after_queue_time_raises_overloaded() -> None:
    assert segment_after(20, index=0).glyphs.shape[1:] == (28, 28)
    with pytest.raises(OverloadedError):
        segment_after(40, index=0)


def test_segment_later_picture_may_wait_until_deadline() -> None:
    assert segment_after(40, index=1).glyphs.shape[1:] == (28, 28)
    with pytest.raises(DeadlineExceededError):
        segment_after(70, index=1)


def test_segment_slow_picture_leaves_event_loop_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("digit_client.images.segment", lambda *_, **__: time.sleep(0.1))
    assert iterations_beside(create_processor().segment, [PNG], 0, DIGITS) > 10


@pytest.mark.parametrize("are_files", [False, True], ids=["arrays", "files"])
def test_prepare_many_pictures_yields_to_event_loop(are_files: bool) -> None:
    # Normalising a diagonal off the centre takes some 0.2 ms.
    pictures = [to_png(OFF_CENTRE)] * 500 if are_files else np.stack([OFF_CENTRE] * 500)
    assert iterations_beside(create_processor().prepare, pictures, DIGITS) >= 2


def iterations_beside(method: Callable[..., object], *arguments: Any) -> int:
    """Return the number of iterations of the event loop during a processor's method."""
    iterations = 0

    async def count_iterations() -> None:
        nonlocal iterations
        while True:
            await asyncio.sleep(0)
            iterations += 1

    async def call_beside_counter() -> None:
        counter = asyncio.create_task(count_iterations())
        try:
            await asgi.run(method, *arguments, request_context())
        finally:
            counter.cancel()

    greenlet_loop.run(call_beside_counter())
    return iterations
