"""Request bodies: the same digit in the file formats that clients send."""

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from digit_core import images

FOLDER = Path(".cache/throughput/bodies")
PHOTOGRAPH = Path("docs/five.jpg")
CANVAS = Path(__file__).with_name("canvas.png")
"""A black five on a white canvas of 280×280 pixels, encoded by `toDataURL()` in Chromium 156: RGBA."""


@dataclass(frozen=True)
class Body:
    """A request's body in a file."""

    file: Path
    content_type: str


def write() -> dict[str, Body]:
    """Write each kind of body into FOLDER; return the bodies by name."""
    digit = images.normalise(images.decode(PHOTOGRAPH.read_bytes()))
    large = cv2.cvtColor(cv2.resize(digit, (280, 280), interpolation=cv2.INTER_CUBIC), cv2.COLOR_GRAY2RGB)
    arrays = io.BytesIO()
    np.save(arrays, np.stack([digit] * 64))
    pictures = {"images": [base64.b64encode(_png(digit)).decode()] * 64}
    kinds = {
        "28×28 PNG": (_png(digit), "image/png"),
        "280×280 RGB PNG": (_png(large), "image/png"),
        "280×280 canvas PNG": (CANVAS.read_bytes(), "image/png"),
        "640×480 photograph JPEG": (PHOTOGRAPH.read_bytes(), "image/jpeg"),
        "64 images, NPY": (arrays.getvalue(), "application/x-npy"),
        "64 images, JSON of PNGs": (json.dumps(pictures).encode(), "application/json"),
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    bodies = {}
    for number, (name, (content, content_type)) in enumerate(kinds.items()):
        bodies[name] = Body(FOLDER / str(number), content_type)
        bodies[name].file.write_bytes(content)
    return bodies


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode the pixels by Pillow with its default options."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
