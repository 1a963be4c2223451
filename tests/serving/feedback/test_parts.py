"""Parts of pictures as they are stored."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image

from digit_core import images
from digit_core.artifact.task_card import DIGITS, CardInput, TaskCard
from digit_core.errors import ImageShapeError
from digit_core.feedback.records import WHOLE
from digit_core.results import Box, Candidate
from digit_serving.feedback.parts import cut, to_whole
from tests.conftest import Digits
from tests.records import make_record

SQUARES = TaskCard("squares", ("a", "b"), CardInput((8, 8, 3), (0.0, 1.0)))


def page_of(digits: Digits, *numbers: int) -> np.ndarray:
    """Return a page, dark on light, with these digits side by side, 40 pixels apart from (20, 30) on."""
    page = np.full((100, 40 * len(numbers) + 40), 255, np.uint8)
    for place, number in enumerate(numbers):
        page[30:58, 20 + 40 * place : 48 + 40 * place] -= digits.one(number)
    return page


def test_cut_box_with_its_margin_is_prepared_as_in_serving(digits: Digits) -> None:
    page = page_of(digits, 3, 8, 5)
    boxes: list[Box | None] = [(20 + 40 * place, 30, 28, 28) for place in range(3)]
    parts = cut(page, boxes)
    assert [part.pixels.shape for part in parts] == [(56, 56)] * 3
    assert [part.box for part in parts] == [(14, 14, 28, 28)] * 3
    for part, number in zip(parts, (3, 8, 5), strict=True):
        # From the file, as a later version prepares it, without what the margin has of the neighbours.
        again = images.prepare(images.decode(part.png), DIGITS, part.box)
        assert np.array_equal(part.prepare(DIGITS), again)
        assert np.corrcoef(again.ravel(), digits.one(number).ravel())[0, 1] > 0.8


def test_cut_for_another_task_prepares_what_the_box_shows() -> None:
    picture = np.zeros((90, 60, 3), np.uint8)
    picture[20:40, 10:30] = (200, 100, 50)
    (part,) = cut(picture, [(10, 20, 20, 20)])
    assert (part.prepare(SQUARES) == (200, 100, 50)).all()
    (edge,) = cut(picture, [(50, 80, 30, 30)])
    assert (edge.pixels.shape, edge.box) == ((15, 15, 3), (5, 5, 10, 10))


def test_cut_of_a_large_photo_is_upright_small_and_without_metadata() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make] = "secret camera"
    file = io.BytesIO()
    Image.new("RGB", (3000, 2000), "red").save(file, "JPEG", exif=exif)
    whole, part = cut(file.getvalue(), [None, (500, 1000, 300, 600)])
    assert whole.pixels.shape[0] * whole.pixels.shape[1] <= 1_000_000
    assert whole.pixels.shape[0] / whole.pixels.shape[1] == pytest.approx(1.5, abs=0.01)
    # A JPEG is decoded downscaled; the box goes along.
    assert part.box
    assert part.box[3] / part.box[2] == pytest.approx(2, abs=0.05)
    assert part.box[2] / part.pixels.shape[1] == pytest.approx(1 / 3, abs=0.02)
    assert b"secret" not in whole.png
    (sideways,) = cut(file.getvalue(), [None], exif=False)
    assert sideways.pixels.shape[1] > sideways.pixels.shape[0]


@pytest.mark.parametrize("shape", [(1, 3_000_000), (3_000_000, 1), (1200, 1000)])
def test_cut_of_any_shape_has_at_most_a_megapixel(shape: tuple[int, int]) -> None:
    (part,) = cut(np.zeros(shape, np.uint8), [None])
    assert 0 < part.pixels.size <= 1_000_000


def test_cut_of_many_boxes_has_at_most_a_megapixel_in_all() -> None:
    parts = cut(np.zeros((1200, 1000), np.uint8), [(place, place, 900, 900) for place in range(64)])
    assert sum(part.pixels.size for part in parts) <= 1_000_000
    assert {part.box[2] for part in parts if part.box} <= {*range(90, 125)}


@pytest.mark.parametrize("scale", [1, 60])
def test_cut_around_boxes_is_a_whole_with_the_places_of_the_digits(scale: int) -> None:
    boxes: list[Box] = [(left * scale, 20 * scale, 10 * scale, 20 * scale) for left in (30, 50)]
    whole, *parts = cut(np.zeros((100 * scale, 200 * scale), np.uint8), boxes, around=boxes)
    assert len(parts) == 2
    assert whole.pixels.size <= 1_000_000
    digits = [make_record(number, part.pixels, predicted=str(number)) for number, part in enumerate(parts)]
    record = to_whole(whole, digits, 0.3, boxes, [Candidate(text, 0.2) for text in ("2", "01", "1")])
    assert (record.position, record.predicted, record.confidence) == (WHOLE, "01", 0.3)
    assert record.reading
    assert record.reading["candidates"] == ["01", "1", "2"]
    # Half a digit is around them.
    height, width = whole.pixels.shape
    for left, place in zip((10, 30), record.reading["boxes"], strict=True):
        shares = (left / 50, 10 / 40, 10 / 50, 20 / 40)
        expected = [share * side for share, side in zip(shares, (width, height) * 2, strict=True)]
        assert place == pytest.approx(expected, abs=1.5)


def test_whole_of_one_candidate_or_without_digits_tells_no_answer() -> None:
    page = np.zeros((100, 200), np.uint8)
    whole, part = cut(page, [None], around=[])
    record = to_whole(whole, [make_record(0, part.pixels)], 0.9, (), [Candidate("2", 0.999)])
    assert (record.box, record.reading) == (None, {"boxes": [], "candidates": []})
    assert whole.pixels.shape == page.shape


@pytest.mark.parametrize("box", [(100, 0, 5, 5), (0, 100, 5, 5), (3, 3, 0, 5)])
def test_cut_box_outside_of_the_picture_is_an_error(box: Box) -> None:
    with pytest.raises(ImageShapeError, match="shows nothing of the picture, 100×90 pixels"):
        cut(np.zeros((90, 100), np.uint8), [box])


def test_prepare_part_without_ink_is_black() -> None:
    (part,) = cut(np.full((50, 50), 200, np.uint8), [(10, 10, 20, 20)])
    assert not part.prepare(DIGITS).any()
