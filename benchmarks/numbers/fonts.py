"""Printed text in the TrueType fonts that matplotlib brings."""

from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.handwriting.pen import Ink, trim
from benchmarks.numbers.surfaces import pick

FONTS = [
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralItalic",
    "cmr10",
    "cmss10",
    "cmtt10",
]


def any_font(rng: np.random.Generator) -> str:
    """Return the name of a random font."""
    return pick(FONTS, rng)


def print_text(text: str, font: str, height: float) -> Ink:
    """Print the text, capitals `height` pixels high."""
    typeface = _load(font, round(height / 0.7))
    left, top, right, bottom = ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox(
        (0, 0), text, typeface
    )
    image = Image.new("L", (round(right - left) + 4, round(bottom - top) + 4))
    ImageDraw.Draw(image).multiline_text((2 - left, 2 - top), text, 255, typeface)
    return trim(np.asarray(image, np.float32) / np.float32(255), 0.1)


@cache
def _load(font: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{font}.ttf"), size)
