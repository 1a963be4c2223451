"""Drawing of readings: pictures with a box around each digit, and the digit beside the box."""

import io
import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from digit_core import images
from digit_core import inputs as _inputs
from digit_core.inputs import ImageSource
from digit_core.results import Reading

_COLOR = (220, 30, 60)
# Certainty below which a digit is marked, by a question mark and another colour.
_MIN_SURE, _DOUBTFUL_COLOR = 0.9, (0, 90, 220)
# Width and height of a picture on a sheet, height of the text below it, and the largest number of pictures.
_CELL, _TEXT, MAX_SHEET = (480, 360), 24, 256
# Characters of the text below a picture that fit.
_MAX_CHARACTERS = 48
# Width of a box's line, as a share of the picture's shorter side.
_LINE_WIDTH = 0.005
# Height of the text, as a share of the box's height, and its least height in pixels.
_TEXT_HEIGHT, _MIN_TEXT_HEIGHT = 0.4, 10


def save(pictures: Sequence[ImageSource], readings: Sequence[Reading | Exception], target: Path) -> None:
    """Write a picture with the boxes of its parts' readings to `target`, or a sheet of several, as PNG.

    Raise ImageError if a source is not an image, OSError if it can't be read or `target` not be written.
    """
    if len(pictures) == 1:
        drawn = draw_form(pictures[0], [each for each in readings if isinstance(each, Reading)])
    else:
        parts = len(readings) // len(pictures)
        drawn = draw_sheet([picture for picture in pictures for _ in range(parts)], readings)
    drawn.save(target, "PNG")


def draw(picture: ImageSource, reading: Reading) -> Image.Image:
    """Return the picture with a box around each digit of its reading, as a Pillow image.

    The digit stands above or below its box, with a question mark if its certainty is below .9. Raise
    ImageError if the picture is not an image, OSError if it can't be read. (Extra `[images]`.)
    """
    return draw_boxes(_decode_full_size(_inputs.read_source(picture)), reading)


def draw_form(picture: ImageSource, readings: Sequence[Reading]) -> Image.Image:
    """Return the picture with the boxes of the digits of all readings, those of its fields."""
    drawn = _decode_full_size(_inputs.read_source(picture))
    for reading in readings:
        drawn = draw_boxes(drawn, reading)
    return drawn


def draw_sheet(pictures: Sequence[ImageSource], readings: Sequence[Reading | Exception]) -> Image.Image:
    """Return the drawings of all readings as one image, each above its text, its refusal, or its error.

    Raise ValueError for no reading, or for more than 256.
    """
    if not 0 < len(readings) <= MAX_SHEET:
        raise ValueError(f"a sheet has 1 to {MAX_SHEET} readings, not {len(readings):,}; draw them in parts")
    columns = math.ceil(math.sqrt(len(readings)))
    across, down = _CELL[0], _CELL[1] + _TEXT
    sheet = Image.new("RGB", (columns * across, math.ceil(len(readings) / columns) * down), "white")
    canvas, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT * 0.7)
    for index, (picture, reading) in enumerate(zip(pictures, readings, strict=True)):
        left, top = index % columns * across, index // columns * down
        text = str(reading)
        if not isinstance(reading, Exception):
            sheet.paste(ImageOps.contain(draw(picture, reading), _CELL), (left, top))
            text = reading.text.replace("\n", " / ") or str(reading.refusal)
            text = f"{reading.field}: {text}" if reading.field else text
        canvas.text((left + 4, top + _CELL[1]), text[:_MAX_CHARACTERS], "black", font)
    return sheet


def draw_boxes(picture: Image.Image, reading: Reading) -> Image.Image:
    """Return a copy of the picture with a box around each digit, and the digit above or below it."""
    drawn = picture.convert("RGBA" if picture.mode == "RGBA" else "RGB")
    canvas = ImageDraw.Draw(drawn)
    line_width = max(1, round(_LINE_WIDTH * min(picture.size)))
    for digit in reading.digits:
        left, top, width, height = digit.box
        is_sure = digit.certainty >= _MIN_SURE
        color, text = (_COLOR if is_sure else _DOUBTFUL_COLOR), f"{digit.digit}{'' if is_sure else '?'}"
        # Pillow draws the outline within the corners, which belong to it: move it off the ink.
        right, bottom = left + width + line_width - 1, top + height + line_width - 1
        left, top = left - line_width, top - line_width
        canvas.rectangle((left, top, right, bottom), outline=color, width=line_width)
        text_height = max(_MIN_TEXT_HEIGHT, _TEXT_HEIGHT * height)
        text_top = top - text_height if top >= text_height else bottom
        canvas.text((left, text_top), text, color, ImageFont.load_default(text_height))
    return drawn


def _decode_full_size(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        # `images.decode` would downscale a JPEG.
        if image.format in ("JPEG", "MPO"):
            return ImageOps.exif_transpose(image).convert("RGB")
    return Image.fromarray(images.decode(data))
