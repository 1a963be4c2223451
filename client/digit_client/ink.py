"""Where on a picture there is ink, whatever the paper, the pen and the light."""

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client.errors import NoDigitError

_SIDE = 512
_GRID = 48
# In levels of 255: less than this can't be told from noise and compression.
_LEAST_CONTRAST = 10.0


def find_ink(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How much each pixel is ink: float32 [h, w] in 0..1, cropped to the digit, 0 where there is none.

    Takes grey [h, w], RGB [h, w, 3] or RGBA [h, w, 4]. Raises NoDigitError when nothing is drawn.
    """
    image = _shrink(_opaque(pixels))
    contrast = _contrast(image - _ground(image))
    threshold, full = _levels(contrast)
    mask = _digit(contrast > threshold)
    # Half the threshold keeps the soft edge of a stroke; a pixel further out belongs to something else.
    near = cv2.dilate(mask, np.ones((3, 3), np.uint8))
    ink = np.clip((contrast - threshold / 2) / (full - threshold / 2), 0, 1) * near
    rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    cropped: NDArray[np.float32] = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return cropped.astype(np.float32)


def _opaque(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The picture on paper that its ink shows on: float32 [h, w, 1 or 3]."""
    image = pixels.astype(np.float32)
    if image.ndim == 2:
        return image[:, :, None]
    if image.shape[2] == 3:
        return image
    colour, alpha = image[:, :, :3], image[:, :, 3:] / np.float32(255)
    if alpha.min() == 1:
        return colour
    weight = float(alpha.sum())
    luminance = float((colour.mean(axis=2, keepdims=True) * alpha).sum()) / weight if weight else 0.0
    paper = np.float32(0 if luminance > 127 else 255)
    opaque: NDArray[np.float32] = colour * alpha + paper * (1 - alpha)
    return opaque


def _shrink(image: NDArray[np.float32]) -> NDArray[np.float32]:
    scale = _SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return _with_channels(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def _with_channels(image: NDArray[np.float32]) -> NDArray[np.float32]:
    return image[:, :, None] if image.ndim == 2 else image


def _ground(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The paper's colour at each pixel, as if nothing were drawn: float32 of the image's shape.

    A surface of second degree follows shade and vignettes. It is fitted to what differs little from it,
    starting from the picture's border, so that ink doesn't pull it.
    """
    height, width, channels = image.shape
    grid = _with_channels(cv2.resize(image, (_GRID, _GRID), interpolation=cv2.INTER_AREA))
    samples = grid.reshape(-1, channels)
    terms = _terms(_GRID, _GRID)
    border = np.concatenate((grid[0], grid[-1], grid[:, 0], grid[:, -1]))
    surface = np.broadcast_to(np.median(border, axis=0), samples.shape)
    coefficients = np.zeros((terms.shape[1], channels), np.float32)
    for _ in range(5):
        distance = np.abs(samples - surface).max(axis=1)
        near = distance <= max(2.5 * float(np.median(distance)), 8.0)
        coefficients = np.linalg.lstsq(terms[near], samples[near], rcond=None)[0].astype(np.float32)
        surface = terms @ coefficients
    ground: NDArray[np.float32] = (_terms(height, width) @ coefficients).reshape(image.shape)
    return ground


def _terms(height: int, width: int) -> NDArray[np.float32]:
    y, x = np.meshgrid(
        (np.arange(height, dtype=np.float32) + 0.5) / height - 0.5,
        (np.arange(width, dtype=np.float32) + 0.5) / width - 0.5,
        indexing="ij",
    )
    terms: NDArray[np.float32] = np.stack((np.ones_like(x), x, y, x * y, x * x, y * y), axis=-1)
    return terms.reshape(-1, 6)


def _contrast(difference: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far each pixel departs from the paper towards the ink's colour, in levels: float32 [h, w].

    Only that direction counts: glare and shadow depart another way.
    """
    strength = np.abs(difference).max(axis=2)
    strongest = strength >= max(float(np.quantile(strength, 0.995)), 1.0)
    if not strongest.any():
        raise NoDigitError("nothing is drawn on the image")
    direction = difference[strongest].mean(axis=0)
    length = float(np.linalg.norm(direction))
    if length < 1.0:
        raise NoDigitError("nothing is drawn on the image")
    towards = direction / (length * difference.shape[2] ** 0.5)
    contrast: NDArray[np.float32] = np.maximum(difference @ towards, 0).astype(np.float32)
    return contrast


def _levels(contrast: NDArray[np.float32]) -> tuple[float, float]:
    """From which contrast on a pixel is ink, and the contrast of ink at its fullest."""
    top = float(np.quantile(contrast, 0.999))
    noise = 1.5 * float(np.median(contrast))
    if top < max(_LEAST_CONTRAST, 5 * noise):
        raise NoDigitError("nothing is drawn on the image")
    levels = np.minimum(contrast * (255 / top), 255).astype(np.uint8)
    otsu, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    threshold = max(otsu * top / 255, 3 * noise)
    above = contrast[contrast > threshold]
    full = float(np.median(above)) if above.size else top
    return threshold, max(full, threshold * 1.05)


def _digit(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Only the strokes of the mask, without specks: uint8 [h, w] of 0 and 1."""
    binary = mask.astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(binary, connectivity=8)
    if count < 2:
        raise NoDigitError("nothing is drawn on the image")
    areas = stats[1:, cv2.CC_STAT_AREA]
    keep = np.concatenate(([0], areas >= 0.05 * areas.max())).astype(np.uint8)
    strokes: NDArray[np.uint8] = keep[labels]
    return strokes
