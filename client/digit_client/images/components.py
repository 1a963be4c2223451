"""Connected components of a mask of ink, and selection of the digit's strokes among them."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client._exceptions import NoInkError
from digit_client.images import stroke_metrics

Labels = NDArray[np.int32]
"""Each pixel's component, counted from 1; 0 is background: int32 [h, w]."""

Boxes = NDArray[np.int32]
"""Each component's left, top, width, height and area, as OpenCV's statistics: int32 [n, 5]."""

Selection = NDArray[np.bool_]
"""A flag for each component: bool [n]."""


@dataclass(frozen=True, slots=True)
class ComponentConfig:
    """Thresholds of the selection. Lengths of components are the longer sides of their boxes."""

    min_frame_side: int = 30
    """Least shorter side of a printed box or circle around a digit, in pixels."""
    max_frame_line: float = 0.2
    """Largest width of the box's line, as a share of the box's height."""
    min_content_height: float = 0.25
    """Least height of the digit in the box, as a share of the box's height."""
    min_enclosure: float = 0.7
    """Least share of each side of the digit that the box's line covers."""

    min_digit_length: float = 0.12
    """Least length of a digit that lies entirely on the picture, as a share of the picture's shorter side."""
    min_distance: float = 0.2
    """Distance from which a component that the border cuts off does not belong to the digit, as a share of
    the digit's length."""
    min_paper_width: float = 0.3
    """Least width of the widest patch of paper, as a share of the square root of the picture's area: less
    means that ink and paper are mistaken for each other."""

    min_speck_length: float = 0.12
    """Length below which a component is a speck, as a share of the largest component's length."""
    max_speck_length: float = 0.2
    """Length from which a component is never a speck, as a share of the largest component's length."""
    min_speck_area: float = 0.02
    """Area below which a component is a speck, as a share of the largest component's area."""

    max_underline_height: float = 0.2
    """Largest height of a line under a digit, as a share of the line's length."""
    min_underline_overhang: float = 0.05
    """Least overhang of the line beyond the digit on each side, as a share of the line's length."""

    min_pen_width: float = 0.3
    """Width below which strokes were drawn by another pen, as a share of the digit's largest width."""


_CONFIG = ComponentConfig()


def select_digit(mask: NDArray[np.uint8], *, is_paper: bool) -> NDArray[np.uint8]:
    """Remove components that do not belong to the digit from the mask: uint8 [h, w] of 0 and 1.

    These are specks, a box or circle around the digit, a line under it, and with `is_paper` objects that
    extend beyond the picture's border. Raise NoInkError if the mask is empty.
    """
    # Labelling without statistics takes a tenth of the time, and suffices for most drawings.
    count, _ = cv2.connectedComponents(mask, connectivity=8)
    if count < 2:
        raise NoInkError("nothing is drawn on the image")
    if count == 2:
        return mask
    _, labels, boxes, _ = cv2.connectedComponentsWithStatsWithAlgorithm(mask, 8, cv2.CV_32S, cv2.CCL_BBDT)
    boxes = np.asarray(boxes[1:], np.int32)
    cut_off = _touch_border(boxes, mask.shape) & is_paper
    # An area of 0 makes a component a speck, which is removed below.
    areas = np.where(_are_frames(labels, boxes), 0, boxes[:, cv2.CC_STAT_AREA])
    if cut_off.any() and min(mask.shape) >= stroke_metrics.MIN_PAGE_SIDE:
        areas[_extend_beyond_border(labels, boxes, areas, cut_off)] = 0
    keep = ~_are_specks(boxes, areas)
    keep &= ~_are_underlines(boxes, keep)
    # Noise has more components; looks_like_strokes() rejects it as a whole.
    if np.count_nonzero(keep) <= stroke_metrics.MAX_COMPONENTS and not cut_off[keep].any():
        keep &= ~_are_by_finer_pen(labels, boxes, keep)
    if keep.all():
        return mask
    return np.asarray(np.concatenate(([False], keep)).astype(np.uint8)[labels], np.uint8)


def _touch_border(boxes: Boxes, shape: tuple[int, ...]) -> Selection:
    """Select components at most one pixel away from the picture's border."""
    left, top, right, bottom = _edges(boxes)
    return (left <= 1) | (top <= 1) | (right >= shape[1] - 1) | (bottom >= shape[0] - 1)


def _are_frames(labels: Labels, boxes: Boxes) -> Selection:
    """Select printed boxes, or circles, around other components."""
    left, top, right, bottom = _edges(boxes)
    width, height = boxes[:, 2:4].T
    selected = np.zeros(len(boxes), np.bool_)
    # A component from border to border is the paper around a digit that fills the picture.
    is_within = (width < labels.shape[1] - 2) & (height < labels.shape[0] - 2)
    for frame in np.flatnonzero(is_within & (np.minimum(width, height) >= _CONFIG.min_frame_side)):
        is_inside = (
            (left > left[frame]) & (right < right[frame]) & (top > top[frame]) & (bottom < bottom[frame])
        )
        contents = np.flatnonzero(is_inside & (height > _CONFIG.min_content_height * height[frame]))
        encloses = any(_encloses(labels == frame + 1, boxes[content]) for content in contents)
        selected[frame] = (
            encloses
            and stroke_metrics.max_stroke_width(_crop(labels, boxes, int(frame)))
            < _CONFIG.max_frame_line * height[frame]
        )
    return selected


def _encloses(frame: NDArray[np.bool_], box: Boxes) -> bool:
    """True if the frame, bool [h, w], lies on all four sides of the box and nowhere in it."""
    left, top, width, height = box[:4]
    rows, columns = frame[top : top + height], frame[:, left : left + width]
    sides = (
        rows[:, :left].any(axis=1),
        rows[:, left + width :].any(axis=1),
        columns[:top].any(axis=0),
        columns[top + height :].any(axis=0),
    )
    is_empty = not rows[:, left : left + width].any()
    return is_empty and all(side.mean() > _CONFIG.min_enclosure for side in sides)


def _extend_beyond_border(
    labels: Labels, boxes: Boxes, areas: NDArray[np.int32], cut_off: Selection
) -> Selection:
    """Select components that the border cuts off and that are far from a digit entirely on the picture."""
    none = np.zeros(len(boxes), np.bool_)
    lengths = _lengths(boxes)
    whole = np.where(~cut_off & (lengths > _CONFIG.min_digit_length * min(labels.shape)), areas, 0)
    digit = int(whole.argmax())
    if not whole.any() or not stroke_metrics.is_slender(_crop(labels, boxes, digit)):
        return none
    # A digit that fills the picture leaves no wide paper: ink and paper are mistaken for each other, and the
    # components that the border cuts off are the digit.
    large = ~_are_specks(boxes, areas)
    large[digit] = True
    paper = ~np.concatenate(([False], large))[labels]
    if stroke_metrics.max_stroke_width(paper) < _CONFIG.min_paper_width * labels.size**0.5:
        return none
    distances = _distances(labels, digit, len(boxes))
    return np.asarray(cut_off & (distances > _CONFIG.min_distance * lengths[digit]), np.bool_)


def _are_specks(boxes: Boxes, areas: NDArray[np.int32]) -> Selection:
    """Select components much smaller than the largest one, or shorter than the width of its strokes."""
    lengths, largest = _lengths(boxes), int(areas.argmax())
    length = lengths[largest]
    pen_width = areas[largest] / max(1, length)
    shortest = max(_CONFIG.min_speck_length * length, min(pen_width, _CONFIG.max_speck_length * length))
    keep = (areas >= _CONFIG.min_speck_area * areas[largest]) & (lengths >= shortest)
    keep[largest] = True
    return np.asarray(~keep, np.bool_)


def _are_underlines(boxes: Boxes, keep: Selection) -> Selection:
    """Select the lowest kept component if it is a line under the others."""
    selected = np.zeros(len(boxes), np.bool_)
    left, top, right, bottom = _edges(boxes)
    lowest = int(np.where(keep, top, -1).argmax())
    others = keep.copy()
    others[lowest] = False
    if others.any():
        width, height = boxes[lowest, 2:4]
        overhang = _CONFIG.min_underline_overhang * width
        selected[lowest] = (
            height < _CONFIG.max_underline_height * width
            and top[lowest] >= bottom[others].max() - height
            and left[others].min() - left[lowest] > overhang
            and right[lowest] - right[others].max() > overhang
        )
    return selected


def _are_by_finer_pen(labels: Labels, boxes: Boxes, keep: Selection) -> Selection:
    """Select kept components outside of the largest one's box and much thinner: remains of a printed box."""
    left, top, right, bottom = _edges(boxes)
    largest = int(np.where(keep, boxes[:, cv2.CC_STAT_AREA], 0).argmax())
    is_inside = (
        (left >= left[largest])
        & (right <= right[largest])
        & (top >= top[largest])
        & (bottom <= bottom[largest])
    )
    selected = np.zeros(len(boxes), np.bool_)
    others = np.flatnonzero(keep & ~is_inside)
    if len(others):
        least = _CONFIG.min_pen_width * stroke_metrics.max_stroke_width(_crop(labels, boxes, largest))
        selected[others] = [
            stroke_metrics.max_stroke_width(_crop(labels, boxes, int(other))) < least for other in others
        ]
    return selected


def _edges(boxes: Boxes) -> tuple[NDArray[np.int32], ...]:
    """Return left, top, right and bottom of each box: four arrays int32 [n]."""
    left, top, width, height = boxes[:, :4].T
    return left, top, left + width, top + height


def _lengths(boxes: Boxes) -> NDArray[np.int32]:
    return np.maximum(boxes[:, cv2.CC_STAT_WIDTH], boxes[:, cv2.CC_STAT_HEIGHT])


def _distances(labels: Labels, component: int, count: int) -> NDArray[np.float32]:
    """Return the distance of each component from the given one, in pixels: float32 [n]."""
    transform = cv2.distanceTransform((labels != component + 1).astype(np.uint8), cv2.DIST_L2, 3)
    nearest = np.full(count + 1, np.inf, np.float32)
    np.minimum.at(nearest, labels.ravel(), transform.ravel())
    return nearest[1:]


def _crop(labels: Labels, boxes: Boxes, component: int) -> NDArray[np.bool_]:
    """Return the component's mask, cropped to its box."""
    left, top, width, height = boxes[component, :4]
    return np.asarray(labels[top : top + height, left : left + width] == component + 1)
