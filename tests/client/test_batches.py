"""Batches of images from any iterable, and images that can't be read."""

import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from digit_client import ImageShapeError, ImageSource, _api
from digit_client._batches import Batch, split
from digit_client._options import Options, ReadOptions, parse


def batches(images: Any, max_items: int = 16, max_bytes: int = 6_000_000) -> list[Batch]:
    """Return the batches of images that are sent as they are."""
    return [*split(images, lambda image: image, max_items, max_bytes)]


def test_split_ends_a_batch_by_number() -> None:
    found = batches([Path("missing.png")] * 50)
    assert [(batch.start, len(batch.images)) for batch in found] == [(0, 16), (16, 16), (32, 16), (48, 2)]
    assert batches([]) == []


@pytest.mark.parametrize(
    "image",
    [bytes(3_000_000), np.zeros((1000, 3000), np.uint8), Image.new("RGB", (1000, 1000))],
    ids=["bytes", "array", "pillow"],
)
def test_split_ends_a_batch_by_memory(image: ImageSource) -> None:
    assert [len(batch.images) for batch in batches([image] * 5)] == [2, 2, 1]
    assert [len(batch.images) for batch in batches([image] * 2, max_bytes=1)] == [1, 1]


def test_split_takes_images_as_they_are_needed() -> None:
    taken = itertools.count()

    def images() -> Iterator[bytes]:
        while True:
            next(taken)
            yield b"image"

    next(split(images(), lambda image: image, 64, 6_000_000))
    assert next(taken) == 65


def test_split_image_that_can_not_be_read_is_its_error(tmp_path: Path) -> None:
    class BrokenFile(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise TimeoutError("no answer from the network drive")

    images: list[Any] = [b"a", tmp_path / "missing.png", np.zeros(7), BrokenFile(), io.BytesIO(b"b")]
    (batch,) = _api.split(images, 64, Options())
    first, missing, no_image, broken, last = batch.images
    assert (first, last) == (b"a", b"b")
    errors = [type(error) for error in (missing, no_image, broken)]
    assert errors == [FileNotFoundError, ImageShapeError, TimeoutError]
    assert (no_image.index, broken.__traceback__) == (2, None)
    assert [name for _, (name, *_) in _api.encode_batch(batch, Options())["files"]] == ["0", "4"]


@pytest.mark.parametrize("shape", [(28, 28), (9, 7, 1), (9, 7, 3)], ids=str)
def test_split_uint8_array_is_sent_as_npy(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (300, *shape), np.uint8)
    found = batches(images)
    assert [batch.start for batch in found] == [0, 256]
    sent = [np.load(io.BytesIO(_api.encode_batch(batch, Options())["content"])) for batch in found]
    assert np.array_equal(np.concatenate(sent), images)
    # A photograph takes as long in an array as in a file.
    for photographs, starts in (((20, 300, 400), [0, 16]), ((3, 1000, 1000, 3), [0, 2])):
        assert [batch.start for batch in batches(np.zeros(photographs, np.uint8))] == starts


@pytest.mark.parametrize(
    ("shape", "kind"), [((9, 7), np.float32), ((9, 7, 4), np.uint8), ((2000, 1100, 3), np.uint8)], ids=str
)
def test_split_floats_alpha_and_what_exceeds_a_request_are_sent_as_pictures(
    shape: tuple[int, ...], kind: type
) -> None:
    (batch,) = _api.split(np.zeros((2, *shape), kind), 64, Options())
    assert len(_api.encode_batch(batch, Options())["files"]) == 2


def test_split_bounds_a_request_with_valid_numbers_too() -> None:
    options = parse(ReadOptions, {"expect": [str(number) for number in range(100_000)]})
    found = [*_api.split([bytes(1_000_000)] * 10, 64, options)]
    sent = [len(json.dumps(_api.encode_batch(batch, options)["json"])) for batch in found]
    assert len(sent) > 1
    assert max(sent) < 8 * 1024 * 1024
