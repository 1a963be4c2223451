"""Drawing of readings."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from digit_client import Digit, Line, Reading
from digit_client._outcomes import Outcomes
from digit_core.drawing import draw_boxes, save
from digit_core.errors import NotAnImageError
from digit_core.results import Box

BOX = (40, 30, 20, 30)


def seven(box: Box) -> Reading:
    digit = Digit(7, 1.0, (0.0,) * 7 + (1.0, 0.0, 0.0), box, is_digit=1.0)
    return Reading("7", (Line("7", box, (digit,), confidence=1.0),), 1, confidence=1.0)


READING = seven(BOX)


def drawn_extent(before: Image.Image, after: Image.Image) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the pixels that differ."""
    differs = (np.asarray(before.convert("RGB")) != np.asarray(after.convert("RGB"))).any(axis=2)
    rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_draw_boxes_draws_around_ink_of_copy(mode: str) -> None:
    picture = Image.new(mode, (100, 80))
    drawn = draw_boxes(picture, READING)
    assert drawn.size == picture.size
    assert not np.asarray(picture).any()
    left, _, right, bottom = drawn_extent(picture, drawn)
    assert (left, right, bottom) == (39, 60, 60)
    assert not np.asarray(drawn.convert("RGB"))[30:60, 40:60].any()


def test_draw_boxes_marks_a_doubtful_digit() -> None:
    picture = Image.new("RGB", (100, 80))
    doubtful = replace(READING.digits[0], is_digit=0.89)
    reading = replace(READING, lines=(replace(READING.lines[0], digits=(doubtful,)),))
    sure, drawn = (np.asarray(draw_boxes(picture, each)).astype(int) for each in (READING, reading))
    assert sure[..., 0].max() > sure[..., 2].max()
    assert drawn[..., 2].max() > drawn[..., 0].max()


def test_draw_of_a_list_is_a_sheet_with_each_picture_and_text(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (480, 360), "black").save(path)
    refused = Reading("", (), 1, confidence=0.0)
    outcomes = Outcomes([READING, refused, NotAnImageError("a text")], [path, (path, {}), b"text"])
    sheet = np.asarray(outcomes.draw())
    assert sheet.shape == (2 * (360 + 24), 2 * 480, 3)
    assert (sheet[:360, :480] != 0).any()
    assert not (sheet[:360, 480:] != 0).any()
    assert (sheet[384:744] == 255).all()
    for left, top in ((0, 360), (480, 360), (0, 744)):
        assert (sheet[top : top + 24, left : left + 480] < 128).any()
    for several in (Outcomes([READING] * 257, [path] * 257), Outcomes([]), Outcomes([READING])):
        with pytest.raises(ValueError, match=r"1 to 256 readings|a list of images"):
            several.draw()


def test_draw_boxes_without_room_above_writes_below() -> None:
    picture = Image.new("RGB", (100, 80))
    drawn = draw_boxes(picture, seven((40, 2, 20, 30)))
    _, top, _, bottom = drawn_extent(picture, drawn)
    assert top == 1
    assert bottom > 34


def test_save_keeps_size_of_jpeg_and_applies_orientation(tmp_path: Path) -> None:
    source, target = tmp_path / "turned.jpg", tmp_path / "shown.png"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (600, 800), "white").save(source, exif=exif)
    box = (400, 300, 80, 160)
    save([source], [seven(box)], target)
    with Image.open(target) as shown:
        assert shown.size == (800, 600)
        left, _, right, bottom = drawn_extent(Image.new("RGB", shown.size, "white"), shown)
    assert (left, right, bottom) == (397, 482, 462)


def test_save_picture_of_16_bits_is_written(tmp_path: Path) -> None:
    source, target = tmp_path / "deep.png", tmp_path / "shown.png"
    Image.fromarray(np.full((80, 100), 65535, np.uint16)).save(source)
    save([source], [READING], target)
    with Image.open(target) as shown:
        assert shown.size == (100, 80)
