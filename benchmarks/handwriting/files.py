"""Image files: pictures encoded as PNG or JPEG."""

import cv2
import numpy as np
from numpy.typing import NDArray


def png(picture: NDArray[np.float32]) -> bytes:
    """Encode grey [h, w], RGB [h, w, 3] or RGBA [h, w, 4] in 0..255 as PNG."""
    pixels = np.rint(picture).astype(np.uint8)
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA if pixels.shape[2] == 4 else cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".png", pixels)[1])


def jpeg(picture: NDArray[np.uint8], rng: np.random.Generator) -> bytes:
    """Encode RGB [h, w, 3] as JPEG, of a random quality that cameras use."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(60, 95))]
    return bytes(cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), quality)[1])
