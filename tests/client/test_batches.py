"""Batches of images from any iterable, and images that can't be read."""

import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from digit_client import ImageShapeError, ImageSource, InvalidOptionError, _api
from digit_client._batches import Batch, Splitter
from digit_client._options import Options, ReadOptions, parse
from digit_core.inputs import read_source


def batches(images: Any, max_items: int = 16, max_bytes: int = 6_000_000) -> list[Batch]:
    """Return the batches of images that are sent as they are."""
    return [*splitter(lambda image: image, max_items, max_bytes).split(images, Options())]


def splitter(read: Any, max_items: int = 64, max_bytes: int = 6_000_000) -> Splitter:
    return Splitter(read, lambda own: parse(ReadOptions, own), max_items, max_bytes)


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

    next(splitter(lambda image: image).split(images(), Options()))
    assert next(taken) == 65


def test_split_image_that_can_not_be_read_is_its_error(tmp_path: Path) -> None:
    class BrokenFile(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise TimeoutError("no answer from the network drive")

    images: list[Any] = [b"a", tmp_path / "missing.png", np.zeros(7), BrokenFile(), io.BytesIO(b"b")]
    (batch,) = splitter(read_source).split(images, Options())
    first, missing, no_image, broken, last = batch.images
    assert (first, last) == (b"a", b"b")
    errors = [type(error) for error in (missing, no_image, broken)]
    assert errors == [FileNotFoundError, ImageShapeError, TimeoutError]
    assert (no_image.index, broken.__traceback__) == (2, None)
    assert [name for _, (name, *_) in _api.encode_batch(batch)["files"]] == ["0", "4"]


@pytest.mark.parametrize("shape", [(28, 28), (9, 7, 1), (9, 7, 3)], ids=str)
def test_split_uint8_array_is_sent_as_npy(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (300, *shape), np.uint8)
    found = batches(images)
    assert [batch.start for batch in found] == [0, 256]
    sent = [np.load(io.BytesIO(_api.encode_batch(batch)["content"])) for batch in found]
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
    (batch,) = splitter(read_source).split(np.zeros((2, *shape), kind), Options())
    assert len(_api.encode_batch(batch)["files"]) == 2


def test_room_is_the_largest_file_that_fits_beside_the_valid_numbers() -> None:
    max_body = 2_000_000
    for given in ({}, {"expect": [str(number) for number in range(100_000)]}):
        options = parse(ReadOptions, given)
        batch = Batch(0, [bytes(_api.room(max_body, options))], options)
        request = httpx.Request("POST", "http://gateway.test", **without_headers(_api.encode_batch(batch)))
        assert 0.99 * max_body < len(request.read()) <= max_body


def without_headers(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return httpx's arguments for a body."""
    return {name: value for name, value in arguments.items() if name != "headers"}


def test_split_image_with_options_of_its_own_begins_a_batch_or_has_their_error() -> None:
    own: list[Any] = [{"expect": "##"}, {"expect": "##"}, None, {"expct": "##"}, {"box": [(0, 0, 9, 9)] * 2}]
    images = [b"a" if given is None else (b"a", given) for given in own]
    found = [*splitter(read_source).split(images, Options())]
    assert [(batch.start, batch.options.get("expect")) for batch in found] == [(0, "##"), (2, None)]
    _, unknown, parts = found[1].images
    assert "did you mean `expect`" in str(unknown)
    assert "as many parts" in str(parts)
    assert all(isinstance(error, InvalidOptionError) for error in (unknown, parts))
