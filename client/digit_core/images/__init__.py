"""Images: from files to pixels, to pages, and to the inputs of models (extra `[images]`).

    from digit_core import images

    digit = images.normalise(images.decode(Path("five.jpg").read_bytes()))  # uint8 [28, 28]

All functions are pure, bytes and arrays in, arrays out:

    bytes ─ files ─▶ pixels ─┬─ pages ─▶ grey page ─ crops, normalisation ─▶ uint8 [28, 28], light on dark
                             └─ preparation, as a task card says ─▶ uint8 [h, w] or [h, w, c]

`digit_core.reading` goes on from grey pages to the numbers on them; no module here imports it.

Terms of these modules: a `level` is a step of the range 0..255; `contrast`, float32 [h, w], is the
difference of each pixel from the paper, in levels; `ink`, float32 [h, w], is a soft mask, from 0 for paper to
1 for ink.
"""

from digit_core.errors import NoInkError
from digit_core.images.crops import crop_digit, crop_drawing, crop_picture, normalise
from digit_core.images.files import MAX_PIXELS, ImageFile, decode, open_image
from digit_core.images.normalisation import are_normalized, fit_to_mnist_canvas, is_normalized
from digit_core.images.pages import Page, to_page, to_part
from digit_core.images.preparation import decode_for_task, open_for_task, prepare
from digit_core.inputs import Pixels, to_png, to_uint8, to_uint8_image

__all__ = [
    "MAX_PIXELS",
    "ImageFile",
    "NoInkError",
    "Page",
    "Pixels",
    "are_normalized",
    "crop_digit",
    "crop_drawing",
    "crop_picture",
    "decode",
    "decode_for_task",
    "fit_to_mnist_canvas",
    "is_normalized",
    "normalise",
    "open_for_task",
    "open_image",
    "prepare",
    "to_page",
    "to_part",
    "to_png",
    "to_uint8",
    "to_uint8_image",
]
