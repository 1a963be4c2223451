"""Image reading: decoding, segmentation of a digit, and normalisation to MNIST's form (extra `[images]`).

    from digit_client import images

    digit = images.normalise(images.decode(Path("five.jpg").read_bytes()))  # uint8 [28, 28]

All functions are pure: bytes and arrays in, arrays out. The stages and their modules, in order:

    bytes ─ decode ─▶ pixels ─ segmentation ─▶ ink ─ normalisation ─▶ uint8 [28, 28]
    segmentation: scaling ─ background ─ thresholding (line_removal, components) ─ document, illumination,
                  and stroke_metrics, which distinguish strokes from sheets, shadows and noise

and for any number of digits:

    bytes ─ decode ─▶ pixels ─ pages ─▶ grey page ─ the reader ─▶ peaks ─ reading, pages ─▶ uint8 [k, 28, 28]
    ─ the digits' model ─▶ predictions ─ reading ─▶ Reading

and for a model of another task, as its task card says:

    bytes ─ decode_for_task ─▶ pixels ─ prepare ─▶ uint8 [h, w] or [h, w, c]

Terms of these modules: a `level` is a step of the range 0..255; `contrast`, float32 [h, w], is the
difference of each pixel from the background, in levels; `ink`, float32 [h, w], is a soft mask, from 0 for
background to 1 for ink; a `mask` is binary; `paper` is the background, of any material; a `sheet` is paper
with a table around it.
"""

from digit_client._exceptions import NoInkError
from digit_client._inputs import Pixels, to_png, to_uint8, to_uint8_image
from digit_client._types import MIN_IS_DIGIT
from digit_client.images.decode import MAX_PIXELS, decode, original_size
from digit_client.images.normalisation import (
    SIDE,
    are_normalized,
    fit_to_mnist_canvas,
    is_normalized,
    normalise,
)
from digit_client.images.pages import PAGE_SIDE, Page, to_page
from digit_client.images.preparation import decode_for_task, prepare
from digit_client.images.reading import Detected, Peaks, detect, digit_indexes, lone_digit, read

__all__ = [
    "MAX_PIXELS",
    "MIN_IS_DIGIT",
    "PAGE_SIDE",
    "SIDE",
    "Detected",
    "NoInkError",
    "Page",
    "Peaks",
    "Pixels",
    "are_normalized",
    "decode",
    "decode_for_task",
    "detect",
    "digit_indexes",
    "fit_to_mnist_canvas",
    "is_normalized",
    "lone_digit",
    "normalise",
    "original_size",
    "prepare",
    "read",
    "to_page",
    "to_png",
    "to_uint8",
    "to_uint8_image",
]
