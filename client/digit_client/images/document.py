"""Document detection: sheets of paper, tables and shadows, by solidity and rectangularity of their masks.

Extent is a region's area over that of its minimum-area rectangle, solidity over that of its convex hull.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client.images.stroke_metrics import border_pixels, max_stroke_width


@dataclass(frozen=True, slots=True)
class DocumentConfig:
    """Thresholds of document detection. Rectangles are minimum-area rectangles, rotated with the region."""

    step: int = 4
    """Stride, in pixels, of the subsampled mask on which outlines are measured."""

    min_solid_width: float = 0.4
    """Width from which a region may be solid, as a share of the rectangle's longer side: strokes of digits
    are narrower or less solid."""
    min_solid_extent: float = 0.8
    """Extent from which a region is solid."""
    min_solidity: float = 0.9
    """Solidity from which a region is solid."""
    min_side_coverage: float = 0.8
    """Share of a side of the picture that is covered: strokes of digits lie along less of it."""
    min_border_coverage: float = 0.5
    """Share of the whole border that is covered: paper covers more, ink less."""

    min_sheet_area: float = 0.05
    """Least area of a sheet's paper, as a share of the picture."""
    min_surroundings: float = 0.25
    """Least share of one side of the picture that shows the surroundings of a sheet."""
    scrap_width: int = 3
    """Width, in sampled pixels, below which an attachment does not belong to a sheet."""
    min_sheet_solidity: float = 0.6
    """Least solidity of a sheet with its holes filled."""
    min_sheet_rectangularity: float = 0.82
    """Least area of a sheet's convex hull, as a share of its rectangle."""

    min_written_solidity: float = 0.95
    """The same as `min_sheet_solidity` for a written sheet: a bold 8 has concavities."""
    min_written_rectangularity: float = 0.9
    """The same as `min_sheet_rectangularity` for a written sheet: a bold 0 has no corners."""
    max_blank: float = 0.97
    """Largest share of a written sheet that is paper: more is a blank sheet."""


_CONFIG = DocumentConfig()


def is_not_strokes(mask: NDArray[np.bool_]) -> bool:
    """True if the mask, bool [h, w], is a sheet of paper, a table's edge or a shadow."""
    return is_solid(mask) or any(side.mean() > _CONFIG.min_side_coverage for side in border_pixels(mask))


def covers_border(mask: NDArray[np.bool_]) -> bool:
    """True if the mask, bool [h, w], covers most of the picture's border, as paper does."""
    return bool(np.concatenate(border_pixels(mask)).mean() > _CONFIG.min_border_coverage)


def is_solid(mask: NDArray[np.bool_]) -> bool:
    """True if the mask, bool [h, w], is a solid, wide region, such as a sheet of paper."""
    points = cv2.findNonZero(_subsample(mask).astype(np.uint8))
    if points is None:
        return False
    longer, shorter, hull_area = _rectangle_and_hull(points)
    least_area = min(_CONFIG.min_solid_extent * longer * shorter, _CONFIG.min_solidity * hull_area)
    # A bold 1 is as solid as a sheet, but slender.
    is_filled = shorter > longer / 2 and mask.sum() > least_area
    return bool(is_filled and max_stroke_width(_fill_holes(mask)) > _CONFIG.min_solid_width * longer)


def find_sheet(mask: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """Return the convex hull, bool [h, w], of the sheet whose paper is the mask, or None for no sheet."""
    if mask.mean() < _CONFIG.min_sheet_area:
        return None
    if not any(side.mean() > _CONFIG.min_surroundings for side in border_pixels(~mask)):
        return None
    paper = _largest_component(_subsample(mask))
    points = cv2.findNonZero(paper.astype(np.uint8))
    if points is None:
        return None
    longer, shorter, hull_area = _rectangle_and_hull(points)
    if hull_area < _CONFIG.min_sheet_rectangularity * longer * shorter:
        return None
    if _CONFIG.step**2 * _fill_holes(paper).sum() < _CONFIG.min_sheet_solidity * hull_area:
        return None
    corners = cv2.convexHull(points) * _CONFIG.step
    return np.asarray(cv2.fillConvexPoly(np.zeros(mask.shape, np.uint8), corners, 1) > 0)


def is_written_sheet(mask: NDArray[np.bool_]) -> bool:
    """True if the mask, bool [h, w], is the paper of a rectangular sheet, with writing left out."""
    sheet = find_sheet(mask)
    if sheet is None:
        return False
    longer, shorter, _ = _rectangle_and_hull(cv2.findNonZero(_subsample(sheet).astype(np.uint8)))
    hull_area, filled_area = np.count_nonzero(sheet), np.count_nonzero(_fill_holes(mask))
    return bool(
        filled_area > _CONFIG.min_written_solidity * hull_area
        and hull_area > _CONFIG.min_written_rectangularity * longer * shorter
        and np.count_nonzero(mask) < _CONFIG.max_blank * filled_area
    )


def erode(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """Erode the mask, bool [h, w], by `width` pixels."""
    return np.asarray(cv2.erode(mask.astype(np.uint8), np.ones((2 * width + 1,) * 2, np.uint8)) > 0)


def _subsample(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return mask[:: _CONFIG.step, :: _CONFIG.step]


def _largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest connected component, without narrow attachments."""
    kernel = np.ones((_CONFIG.scrap_width, _CONFIG.scrap_width), np.uint8)
    # OpenCV's default border does not erode regions at the picture's border.
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
    return np.asarray((labels == 1 + boxes[1:, cv2.CC_STAT_AREA].argmax()) if count > 1 else opened > 0)


def _rectangle_and_hull(points: NDArray[np.int32]) -> tuple[float, float, float]:
    """Return the longer and shorter side of the minimum-area rectangle and the convex hull's area, in pixels.

    Takes the points of a subsampled mask, int32 [n, 1, 2].
    """
    step = _CONFIG.step
    _, lengths, _ = cv2.minAreaRect(points)
    longer, shorter = step * (max(lengths) + 1), step * (min(lengths) + 1)
    # OpenCV's hull runs through the centres of the outermost pixels: add half a pixel around it.
    hull_area = step**2 * cv2.contourArea(cv2.convexHull(points)) + step * (longer + shorter)
    return longer, shorter, hull_area


def _fill_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill the holes in the mask, such as a digit on a sheet: bool [h, w]."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(np.zeros(mask.shape, np.uint8), contours, -1, 1, -1) > 0)
