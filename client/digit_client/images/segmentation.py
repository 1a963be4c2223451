"""Segmentation of the digit on a picture, for any paper, pen and illumination.

Drawings have a flat background; photographs and scans are tried as paper, as a sheet on a table, as a bold
digit that fills the picture, and as shaded paper, until the ink looks like the strokes of a digit.
"""

from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client._exceptions import NoInkError
from digit_client._types import Box
from digit_client.images import (
    background,
    components,
    document,
    illumination,
    scaling,
    stroke_metrics,
    thresholding,
)
from digit_client.images.stroke_metrics import INK_THRESHOLD


@dataclass(frozen=True, slots=True)
class SegmentationConfig:
    """Parameters of the choice between the methods of segmentation."""

    drawing_side: int = 128
    """Longer side, in pixels, to which drawings are downscaled: their sharp edges allow it."""
    min_drawing_side: int = 3
    """Longer side, in pixels, below which a drawing is a speck."""
    min_photo_side: int = 50
    """Shorter side, in pixels, below which a picture is a tight crop: it shows nothing but the digit."""
    max_paper_distance: float = 0.4
    """Share of a tight crop's range of levels within which pixels are as light or dark as the paper."""
    min_bold_share: float = 0.9
    """Least share of the pixels outside of the paper that a bold digit's ink covers."""
    max_fine_width: float = 0.4
    """Largest width of a fine line, printed or by another pen, as a share of the strokes' largest width."""
    sheet_margin: int = 3
    """Width, in pixels, of a sheet's edge, which may show the table, and of the blank paper inside of it."""
    min_sheet_width: float = 2.0
    """Least ratio of the largest width of a sheet's paper to that of the strokes on it."""


_CONFIG = SegmentationConfig()


@dataclass(frozen=True, slots=True)
class DigitInk:
    """Ink of a digit: a soft mask, float32 [h, w] in 0..1, and its box on the picture."""

    ink: NDArray[np.float32]
    box: Box


def segment_digit(pixels: NDArray[np.uint8]) -> DigitInk:
    """Return the digit's ink, cropped to the digit.

    Takes grey [h, w], RGB [h, w, 3] or RGBA [h, w, 4]. Raise NoInkError if nothing on the picture looks
    like the strokes of a digit.
    """
    picture = flatten_alpha(scaling.downscale(pixels))
    if not _is_tight_crop(picture.shape):
        picture = scaling.undo_upscaling(picture)
    if _is_tight_crop(picture.shape):
        picture = _stretch_contrast(picture)
    scale = pixels.shape[1] / picture.shape[1], pixels.shape[0] / picture.shape[0]
    foreground = background.flat_foreground(picture)
    if foreground is not None and max(foreground[0].shape) >= _CONFIG.min_drawing_side:
        drawing, offset = foreground
        with suppress(NoInkError):
            factor = scaling.downscale_factor(drawing.shape, _CONFIG.drawing_side)
            contrast = scaling.downscale(drawing, _CONFIG.drawing_side).astype(np.float32)
            ink = thresholding.threshold_ink(contrast, is_paper=False)
            # A solid region may be a drawn sheet of paper with the digit on it.
            if not document.is_solid(ink > INK_THRESHOLD):
                return _crop(ink, offset, factor, scale)
    levels = picture.astype(np.float32)
    ink = _segment_paper(levels)
    # Drawings of any shape are accepted: a client may send the first dot of an unfinished digit.
    is_photo = not _is_tight_crop(picture.shape) and not background.has_uniform_border(picture)
    if is_photo and not stroke_metrics.looks_like_strokes(ink, levels):
        ink = _retry_segmentation(levels, ink)
    # The ink of a tight crop is padded.
    padding = (picture.shape[1] - ink.shape[1]) // 2
    return _crop(ink, (padding, padding), 1, scale)


def _segment_paper(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the ink by contrast with paper, a sheet's paper, or the paper around a bold digit."""
    if _is_tight_crop(picture.shape):
        return _segment_tight_crop(picture)
    signed = background.subtract_background(picture)
    contrast = np.maximum(signed, 0)
    try:
        ink = thresholding.threshold_ink(contrast, is_paper=True)
    except NoInkError:
        if not background.has_shadow(contrast):
            raise
        return illumination.threshold_locally(picture)
    mask = ink > INK_THRESHOLD
    ink_on_sheet = _segment_sheet(picture, mask)
    if ink_on_sheet is not None:
        return ink_on_sheet
    if document.covers_border(mask):
        bold_ink = _segment_bold(picture, mask)
        if bold_ink is not None:
            return bold_ink
    return illumination.remove_shading(picture, signed, ink)


def _retry_segmentation(picture: NDArray[np.float32], ink: NDArray[np.float32]) -> NDArray[np.float32]:
    """Segment without fine lines, by opposite contrast, then by local contrast, until ink looks like strokes.

    Raise NoInkError if no method finds strokes.
    """
    for segment in (partial(_remove_fine_lines, ink), partial(_segment_opposite_contrast, picture)):
        with suppress(NoInkError):
            strokes = segment()
            if stroke_metrics.looks_like_even_strokes(strokes, picture):
                return strokes
    local = illumination.threshold_locally(picture)
    if stroke_metrics.looks_like_high_contrast_strokes(local, picture):
        return local
    raise NoInkError("nothing on the image looks like the strokes of a digit")


def _segment_tight_crop(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the ink of a digit that may touch every side and cover most of the picture."""
    contrast = np.maximum(background.subtract_background(picture, _paper_by_corners(picture)), 0)
    # Pad with paper: ink on most of a picture would be mistaken for noise.
    padded = scaling.pad(contrast, min(contrast.shape) // 2 + 1)
    return thresholding.threshold_ink(padded, is_paper=True)


def _paper_by_corners(picture: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return the pixels as light or dark as the corners, most of which show paper: bool [h, w]."""
    lightness = picture.reshape(*picture.shape[:2], -1).mean(axis=2)
    low, high = float(lightness.min()), float(lightness.max())
    share = (lightness - low) / max(high - low, 1.0)
    is_light = share[[0, 0, -1, -1], [0, -1, 0, -1]].mean() > 0.5
    distance = _CONFIG.max_paper_distance
    return np.asarray(share > 1 - distance if is_light else share < distance)


def _segment_sheet(picture: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32] | None:
    """Return the ink on a sheet whose paper is the mask or its complement, or None if there is no sheet."""
    for paper in (mask, ~mask):
        sheet = document.find_sheet(paper)
        if sheet is None:
            continue
        inside = document.erode(sheet, _CONFIG.sheet_margin)
        ink = _segment_inside(picture, inside) if inside.any() else None
        if ink is None:
            continue
        # Narrow paper may be the inside of a bold 0, which would pass for writing on a sheet.
        ink_width = stroke_metrics.max_stroke_width(ink > INK_THRESHOLD)
        if _CONFIG.min_sheet_width * ink_width < stroke_metrics.max_stroke_width(paper):
            return ink
    return None


def _segment_inside(picture: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float32] | None:
    """Return the strokes inside of the mask, or None if it shows no strokes, or only a shadow's edge."""
    with suppress(NoInkError):
        ink = thresholding.threshold_ink(background.contrast_in_mask(picture, inside), is_paper=True)
        if not stroke_metrics.looks_like_strokes(ink, picture):
            return None
        # A shadow's edge extends to the sheet's edge; writing leaves a margin.
        margin = ~document.erode(inside, _CONFIG.sheet_margin)
        if not (ink > INK_THRESHOLD)[margin].any():
            return ink
    return None


def _segment_bold(picture: NDArray[np.float32], paper: NDArray[np.bool_]) -> NDArray[np.float32] | None:
    """Return the ink of a bold digit that fills the picture, given the paper, or None for another picture."""
    with suppress(NoInkError):
        contrast = np.maximum(background.subtract_background(picture, paper), 0)
        ink = thresholding.threshold_ink(contrast, is_paper=True)
        mask = ink > INK_THRESHOLD
        covers_rest = mask.sum() > _CONFIG.min_bold_share * np.count_nonzero(~paper)
        if covers_rest and not document.is_not_strokes(mask) and not document.is_written_sheet(mask):
            return ink
    return None


def _segment_opposite_contrast(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ink of negative contrast, as on a picture whose glare differs more from the paper than ink."""
    contrast = np.maximum(-background.subtract_background(picture), 0)
    return thresholding.threshold_ink(contrast, is_paper=True)


def _remove_fine_lines(ink: NDArray[np.float32]) -> NDArray[np.float32]:
    """Remove lines much finer than the strokes, such as printed lines that touch them, by opening."""
    mask = ink > INK_THRESHOLD
    side = max(3, round(_CONFIG.max_fine_width * stroke_metrics.max_stroke_width(mask)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    digit = components.select_digit(opened, is_paper=True)
    return np.asarray(ink * cv2.dilate(digit, np.ones((3, 3), np.uint8)), np.float32)


def _is_tight_crop(shape: tuple[int, ...]) -> bool:
    return min(shape[:2]) < _CONFIG.min_photo_side


def _crop(
    ink: NDArray[np.float32], offset: tuple[int, int], factor: int, scale: tuple[float, float]
) -> DigitInk:
    """Crop to the digit. A pixel of the ink is `factor` pixels from `offset`, each `scale` of the picture."""
    # Crop to pixels above the threshold: fainter pixels would enlarge the box of a small digit.
    rows, columns = stroke_metrics.bounding_box(ink > INK_THRESHOLD)
    left, right = (round((offset[0] + factor * x) * scale[0]) for x in (columns.start, columns.stop))
    top, bottom = (round((offset[1] + factor * y) * scale[1]) for y in (rows.start, rows.stop))
    return DigitInk(np.asarray(ink[rows, columns], np.float32), (left, top, right - left, bottom - top))


def _stretch_contrast(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Stretch the levels to 0..255: a small scan may have only sixteen levels."""
    low, high, _, _ = cv2.minMaxLoc(picture.reshape(len(picture), -1))
    if high - low < thresholding.MIN_CONTRAST:
        return picture
    scale = 255 / (high - low)
    return np.asarray(cv2.convertScaleAbs(picture, alpha=scale, beta=-low * scale))


def flatten_alpha(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Blend RGBA with white or black paper, in contrast to the ink: uint8 [h, w] or [h, w, 3]."""
    if pixels.ndim == 2 or pixels.shape[2] == 3:
        return pixels
    if pixels[:, :, 3].min() == 255:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB), np.uint8)
    color, alpha = pixels[:, :, :3].astype(np.float32), pixels[:, :, 3:] / np.float32(255)
    weight = float(alpha.sum())
    luminance = float((color.mean(axis=2, keepdims=True) * alpha).sum()) / weight if weight else 0.0
    paper = np.float32(0 if luminance > 127 else 255)
    return np.asarray(np.rint(color * alpha + paper * (1 - alpha)), np.uint8)
