"""Drawing of a reading: the picture with a box around each digit, and the digit beside the box."""

import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from digit_core import images
from digit_core import inputs as _inputs
from digit_core.inputs import ImageSource
from digit_core.results import Reading

_COLOR = (220, 30, 60)
# Width of a box's line, as a share of the picture's shorter side.
_LINE_WIDTH = 0.005
# Height of the text, as a share of the box's height, and its least height in pixels.
_TEXT_HEIGHT, _MIN_TEXT_HEIGHT = 0.4, 10


def save_boxes(source: ImageSource, reading: Reading, target: Path) -> None:
    """Write the picture with the boxes of its reading to `target`, as PNG.

    Raise ImageError if the source is not an image, OSError if it can't be read or `target` not be written.
    """
    draw_boxes(_decode_full_size(_inputs.read_source(source)), reading).save(target, "PNG")


def draw_boxes(picture: Image.Image, reading: Reading) -> Image.Image:
    """Return a copy of the picture with a box around each digit, and the digit above or below it."""
    drawn = picture.convert("RGBA" if picture.mode == "RGBA" else "RGB")
    canvas = ImageDraw.Draw(drawn)
    line_width = max(1, round(_LINE_WIDTH * min(picture.size)))
    for digit in reading.digits:
        left, top, width, height = digit.box
        # Pillow draws the outline within the corners, which belong to it: move it off the ink.
        right, bottom = left + width + line_width - 1, top + height + line_width - 1
        left, top = left - line_width, top - line_width
        canvas.rectangle((left, top, right, bottom), outline=_COLOR, width=line_width)
        text_height = max(_MIN_TEXT_HEIGHT, _TEXT_HEIGHT * height)
        text_top = top - text_height if top >= text_height else bottom
        canvas.text((left, text_top), str(digit.digit), _COLOR, ImageFont.load_default(text_height))
    return drawn


def _decode_full_size(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        # `images.decode` would downscale a JPEG.
        if image.format in ("JPEG", "MPO"):
            return ImageOps.exif_transpose(image).convert("RGB")
    return Image.fromarray(images.decode(data))
