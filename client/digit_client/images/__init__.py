"""Images of digits: decoding, segmentation, and normalisation to MNIST's form (extra `[images]`).

    from digit_client import images

    digit = images.normalise(images.decode(Path("five.jpg").read_bytes()))  # uint8 [28, 28]

All functions are pure: bytes and arrays in, arrays out.
"""

from digit_client._inputs import Pixels, to_png, to_uint8, to_uint8_image
from digit_client.images.decode import MAX_PIXELS, decode
from digit_client.images.normalisation import (
    SIDE,
    are_normalized,
    fit_to_mnist_canvas,
    is_normalized,
    normalise,
)

__all__ = [
    "MAX_PIXELS",
    "SIDE",
    "Pixels",
    "are_normalized",
    "decode",
    "fit_to_mnist_canvas",
    "is_normalized",
    "normalise",
    "to_png",
    "to_uint8",
    "to_uint8_image",
]
