"""Batches of pictures from any iterable, and open files that can't be read."""

import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from digit_client import ImageSource
from digit_client._model_server_client import batches
from digit_core.errors import without_tracebacks
from digit_core.recognition import MAX_BATCH


def test_batches_number_pictures_and_end_at_their_size() -> None:
    found = [*batches([Path("missing.png")] * (2 * MAX_BATCH + 3))]
    assert [len(batch.pictures) for batch in found] == [MAX_BATCH, MAX_BATCH, 3]
    assert [batch.start for batch in found] == [0, MAX_BATCH, 2 * MAX_BATCH]
    assert [*batches([])] == []


def test_batches_of_array_are_its_parts() -> None:
    images = np.zeros((300, 5, 7), np.uint8)
    found = [*batches(images)]
    assert [(batch.start, np.asarray(batch.pictures).shape) for batch in found] == [
        (0, (256, 5, 7)),
        (256, (44, 5, 7)),
    ]


@pytest.mark.parametrize(
    "image",
    [bytes(10_000_000), np.zeros((1000, 10_000), np.uint8), Image.new("RGB", (3000, 1200))],
    ids=["bytes", "array", "pillow"],
)
def test_batches_of_large_images_are_short(image: ImageSource) -> None:
    assert [len(batch.pictures) for batch in batches([image] * 9)] == [4, 4, 1]


def test_batches_take_no_image_before_its_batch() -> None:
    taken = itertools.count()

    def images() -> Iterator[bytes]:
        while True:
            next(taken)
            yield b"image"

    next(batches(images()))
    assert next(taken) == MAX_BATCH


def test_batches_unreadable_open_file_is_its_error() -> None:
    class BrokenFile(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise TimeoutError("no answer from the network drive")

    (batch,) = batches([io.BytesIO(b"image"), BrokenFile()])
    content, error = batch.pictures
    assert content == b"image"
    assert isinstance(error, TimeoutError)
    assert error.__traceback__ is None


def test_without_tracebacks_clears_every_cause() -> None:
    try:
        try:
            raise ValueError("cause")
        except ValueError as error:
            raise KeyError("effect") from error
    except KeyError as error:
        cleared = without_tracebacks(error)
    assert cleared.__traceback__ is None
    assert cleared.__cause__ is not None
    assert cleared.__cause__.__traceback__ is None
