"""What is sent: the same digit in the ways that clients send digits."""

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Body:
    """A request's body in a file."""

    file: Path
    content_type: str


def write(folder: Path, digit: NDArray[np.uint8]) -> dict[str, Body]:
    """Each kind by its name, of a digit uint8 [28, 28], light ink on dark."""
    folder.mkdir(parents=True, exist_ok=True)
    large = cv2.cvtColor(cv2.resize(digit, (280, 280), interpolation=cv2.INTER_CUBIC), cv2.COLOR_GRAY2RGB)
    kinds = {
        "28×28 PNG": (_png(digit), "image/png"),
        "280×280 RGB PNG": (_png(large), "image/png"),
        "64 images, NPY": (many(digit, 64), "application/x-npy"),
        "64 images, JSON of PNGs": (_json(digit, 64), "application/json"),
    }
    bodies = {}
    for number, (name, (content, content_type)) in enumerate(kinds.items()):
        bodies[name] = Body(folder / str(number), content_type)
        bodies[name].file.write_bytes(content)
    return bodies


def many(digit: NDArray[np.uint8], count: int) -> bytes:
    """The digit that many times, as NumPy's file."""
    buffer = io.BytesIO()
    np.save(buffer, np.stack([digit] * count))
    return buffer.getvalue()


def _png(pixels: NDArray[np.uint8]) -> bytes:
    return bytes(cv2.imencode(".png", pixels)[1])


def _json(digit: NDArray[np.uint8], count: int) -> bytes:
    text = base64.b64encode(_png(digit)).decode()
    return json.dumps({"images": [text] * count}).encode()
