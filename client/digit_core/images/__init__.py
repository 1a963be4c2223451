"""Image reading: decoding, pages on which digits are found, and crops in MNIST's form (extra `[images]`).

    from digit_core import images

    digit = images.normalise(images.decode(Path("five.jpg").read_bytes()))  # uint8 [28, 28]

All functions are pure, bytes and arrays in, arrays out:

    bytes ─ decode ─▶ pixels ─ pages ─▶ grey page ─ crops ─▶ uint8 [28, 28], all ink on the picture; and with
the reader, which finds digits:

    grey page ─ the reader ─▶ peaks ─ reading, crops ─▶ uint8 [k, 28, 28] ─ the digits' model ─▶ predictions
    ─ reading ─▶ Reading

and for a model of another task, as its task card says:

    bytes ─ decode_for_task ─▶ pixels ─ prepare ─▶ uint8 [h, w] or [h, w, c]

Terms of these modules: a `level` is a step of the range 0..255; `contrast`, float32 [h, w], is the
difference of each pixel from the paper, in levels; `ink`, float32 [h, w], is a soft mask, from 0 for paper to
1 for ink.
"""

from digit_core.errors import NoInkError
from digit_core.images.certainty import line_features
from digit_core.images.crops import crop_digit, crop_drawing, crop_picture, normalise
from digit_core.images.decode import MAX_PIXELS, ImageFile, decode, open_image
from digit_core.images.lines import (
    Detected,
    FoundLines,
    choose_digits,
    detect,
    digits_and_signs,
    find_lines,
    lone_digit,
    mix_best,
    settle,
)
from digit_core.images.normalisation import are_normalized, fit_to_mnist_canvas, is_normalized
from digit_core.images.pages import TURNED_SIDE, Page, to_page, to_pages
from digit_core.images.preparation import decode_for_task, open_for_task, prepare
from digit_core.images.reading import read
from digit_core.inputs import Pixels, to_png, to_uint8, to_uint8_image
from digit_core.peaks import Peaks

__all__ = [
    "MAX_PIXELS",
    "TURNED_SIDE",
    "Detected",
    "FoundLines",
    "ImageFile",
    "NoInkError",
    "Page",
    "Peaks",
    "Pixels",
    "are_normalized",
    "choose_digits",
    "crop_digit",
    "crop_drawing",
    "crop_picture",
    "decode",
    "decode_for_task",
    "detect",
    "digits_and_signs",
    "find_lines",
    "fit_to_mnist_canvas",
    "is_normalized",
    "line_features",
    "lone_digit",
    "mix_best",
    "normalise",
    "open_for_task",
    "open_image",
    "prepare",
    "read",
    "settle",
    "to_page",
    "to_pages",
    "to_png",
    "to_uint8",
    "to_uint8_image",
]
