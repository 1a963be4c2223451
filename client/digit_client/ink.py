"""Where on a picture there is ink, whatever the paper, the pen and the light."""

import math
from contextlib import suppress

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client import ground, ruling
from digit_client.errors import NoDigitError

_SIDE = 512
# In levels of 255: less than this can't be told from noise and compression.
_LEAST_CONTRAST = 10.0
_EDGE = 0.2
# Smaller pictures show nothing but the digit.
_SMALLEST = 100
_COARSE = 4
# No digit's strokes are this thick, of its length, and fill this much of its box; none runs along this much
# of a side of the picture.
_THICK = 0.4
_FULL = 0.8
_ALONG = 0.8


def find_ink(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How much each pixel is ink: float32 [h, w] in 0..1, cropped to the digit, 0 where there is none.

    Takes grey [h, w], RGB [h, w, 3] or RGBA [h, w, 4]. Raises NoDigitError when nothing is drawn.
    """
    picture = _opaque(_shrink(pixels))
    contrast = ground.contrast(picture)
    ink = _ink(contrast)
    if min(ink.shape) >= _SMALLEST and (_is_a_thing(ink > _EDGE) or ground.has_shadow(contrast)):
        with suppress(NoDigitError):
            local = _ink(ground.local_contrast(picture))
            # A digit that fills the picture, and may be as thick, touches its border in both.
            ink = ink if _sides(local > _EDGE).any() else local
    # A fainter edge would make the digit look larger than it is where it has few pixels.
    left, top, width, height = cv2.boundingRect((ink > _EDGE).astype(np.uint8))
    return np.asarray(ink[top : top + height, left : left + width], np.float32)


def _ink(contrast: NDArray[np.float32]) -> NDArray[np.float32]:
    threshold, full = _levels(contrast)
    mask, faint = ((contrast > least).astype(np.uint8) for least in (threshold, threshold / 2))
    mask = _strokes(ruling.remove(mask, faint))
    # Half the threshold keeps the soft edge of a stroke; a pixel further out belongs to something else.
    near = cv2.dilate(mask, np.ones((3, 3), np.uint8))
    return np.asarray(np.clip((contrast - threshold / 2) / (full - threshold / 2), 0, 1) * near, np.float32)


def _is_a_thing(mask: NDArray[np.bool_]) -> bool:
    """Whether this is a sheet of paper, a table's edge or a shadow, and not strokes: bool [h, w]."""
    coarse = cv2.findNonZero(mask[::_COARSE, ::_COARSE].astype(np.uint8))
    if coarse is None:
        return False
    _, sides, _ = cv2.minAreaRect(coarse)
    longer, shorter = _COARSE * (max(sides) + 1), _COARSE * (min(sides) + 1)
    # A bold 1 is as full as a sheet, but slim.
    is_full = shorter > longer / 2 and mask.sum() > _FULL * longer * shorter
    return bool((is_full and _thickness(mask) > _THICK * longer) or _sides(mask).max() > _ALONG)


def _thickness(mask: NDArray[np.bool_]) -> float:
    """Of what is in the mask, where it is thickest, in pixels."""
    return 2 * float(cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 3).max())


def _sides(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The share of each of the picture's four sides that is in the mask."""
    return np.array([side.mean() for side in (mask[0], mask[-1], mask[:, 0], mask[:, -1])])


def _shrink(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # By a whole number, which is several times as fast.
    factor = math.ceil(max(pixels.shape[:2]) / _SIDE)
    size = (max(1, pixels.shape[1] // factor), max(1, pixels.shape[0] // factor))
    return pixels if factor == 1 else np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))


def _opaque(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The picture on paper that its ink shows on: float32 [h, w] or [h, w, 3]."""
    image = pixels.astype(np.float32)
    if image.ndim == 2 or image.shape[2] == 3:
        return image
    colour, alpha = image[:, :, :3], image[:, :, 3:] / np.float32(255)
    if alpha.min() == 1:
        return np.ascontiguousarray(colour)
    weight = float(alpha.sum())
    luminance = float((colour.mean(axis=2, keepdims=True) * alpha).sum()) / weight if weight else 0.0
    paper = np.float32(0 if luminance > 127 else 255)
    return np.asarray(colour * alpha + paper * (1 - alpha), np.float32)


def _levels(contrast: NDArray[np.float32]) -> tuple[float, float]:
    """From which contrast on a pixel is ink, and the contrast of ink at its fullest."""
    sample = contrast[::2, ::2] if min(contrast.shape) > 100 else contrast
    top = float(np.quantile(sample, 0.999))
    faint = sample[sample < top / 2]
    noise = 1.5 * float(np.quantile(faint, 0.5)) if faint.size else 0.0
    if top < max(_LEAST_CONTRAST, 5 * noise):
        raise NoDigitError("nothing is drawn on the image")
    levels = cv2.convertScaleAbs(contrast, alpha=255 / top)
    otsu, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    threshold = max(otsu * top / 255, 3 * noise)
    above = sample[sample > threshold]
    if not above.size:
        return threshold, max(top, threshold * 1.05)
    # Where printed lines or shade outnumber the ink, the threshold lies below them, but ink is the darkest.
    full = float(np.quantile(above, 0.75))
    threshold = max(threshold, 0.4 * full)
    return threshold, max(full, threshold * 1.05)


def _strokes(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Only the pieces of the mask that are strokes of the digit, without specks: uint8 [h, w] of 0 and 1."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count < 2:
        raise NoDigitError("nothing is drawn on the image")
    stats = stats[1:]
    areas = stats[:, cv2.CC_STAT_AREA]
    lengths = stats[:, (cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT)].max(axis=1)
    main = int(areas.argmax())
    # A stroke is longer than it is wide; what is no longer than the pen is wide is a speck.
    length = lengths[main]
    shortest = max(0.12 * length, min(areas[main] / max(1, length), 0.2 * length))
    keep = (areas >= 0.02 * areas[main]) & (lengths >= shortest)
    keep[main] = True
    return np.asarray(np.concatenate(([False], keep)).astype(np.uint8)[labels], np.uint8)
