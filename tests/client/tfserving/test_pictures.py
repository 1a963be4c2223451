"""Batches of pictures from any iterable, and the pictures' errors."""

import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from digit_client import ImageSource, NotAnImageError
from digit_client._exceptions import without_tracebacks
from digit_client.tfserving.pictures import BATCH_SIZE, Picture, batches


def test_batches_number_pictures_and_end_at_their_size() -> None:
    groups = [*batches([Path("missing.png")] * (2 * BATCH_SIZE + 3))]
    assert [len(group) for group in groups] == [BATCH_SIZE, BATCH_SIZE, 3]
    assert [picture.index for group in groups for picture in group] == [*range(2 * BATCH_SIZE + 3)]
    assert [*batches([])] == []


@pytest.mark.parametrize(
    "image",
    [bytes(10_000_000), np.zeros((1000, 10_000), np.uint8), Image.new("RGB", (3000, 1200))],
    ids=["bytes", "array", "pillow"],
)
def test_batches_of_large_images_are_short(image: ImageSource) -> None:
    assert [len(group) for group in batches([image] * 9)] == [4, 4, 1]


def test_batches_take_no_image_before_its_batch() -> None:
    taken = itertools.count()

    def images() -> Iterator[bytes]:
        while True:
            next(taken)
            yield b"image"

    next(batches(images()))
    assert next(taken) == BATCH_SIZE


def test_attempt_unreadable_open_file_returns_its_error() -> None:
    class BrokenFile(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise TimeoutError("no answer from the network drive")

    ((picture,),) = batches([BrokenFile()])
    outcome = picture.attempt(picture.normalise)
    assert isinstance(outcome, TimeoutError)
    assert outcome.__traceback__ is None


def test_attempt_image_error_has_index_and_no_traceback() -> None:
    picture = Picture.of(b"no image", 7)
    outcome = picture.attempt(picture.segment)
    assert isinstance(outcome, NotAnImageError)
    assert outcome.index == 7
    assert outcome.__cause__ is not None
    assert outcome.__traceback__ is outcome.__cause__.__traceback__ is None


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
