"""Which pieces of what stands out on a picture are the strokes of a digit."""

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client._exceptions import NoDigitError
from digit_client.images import stroke_metrics

Labels = NDArray[np.int32]
"""Of each pixel the number of its piece, from 1 on: [h, w]."""

Boxes = NDArray[np.int32]
"""Of each piece its left, top, width, height and area, as OpenCV has them: [n, 5]."""

Choice = NDArray[np.bool_]
"""One for each piece: [n]."""

# A box or a circle is at least this large, in pixels, with lines no thicker than this, of its height.
# What is written in it is at least so high, of its height, and has some of it at this much of each side.
_LEAST_FRAME, _LINE = 30, 0.2
_WRITTEN, _BESIDE = 0.25, 0.7
# So long at least, of the picture's shorter side, is a digit that is all on it. What is cut off by the border
# and further from it than this, of its length, is something else.
_STROKE, _NEAR = 0.12, 0.2
# So broad at least, of the root of the picture's area, paper is that shows anywhere.
_OPEN = 0.3
# A line under a digit is at most so high and ends so far beyond it, of its own length.
_FLAT, _BEYOND = 0.2, 0.05
# What is thinner than this, of the digit's thickest stroke, was drawn with another pen.
_THIN = 0.3


def strokes(mask: NDArray[np.uint8], *, is_paper: bool) -> NDArray[np.uint8]:
    """Only the pieces of the mask that are strokes of the digit: uint8 [h, w] of 0 and 1.

    Left out are specks, a box or circle around the digit, a line under it, and in a picture of paper what
    reaches into it from beyond its border. Raises NoDigitError where there is nothing.
    """
    # To count them takes a tenth of the time.
    count, _ = cv2.connectedComponents(mask, connectivity=8)
    if count < 2:
        raise NoDigitError("nothing is drawn on the image")
    if count == 2:
        return mask
    _, labels, boxes, _ = cv2.connectedComponentsWithStatsWithAlgorithm(mask, 8, cv2.CV_32S, cv2.CCL_BBDT)
    boxes = np.asarray(boxes[1:], np.int32)
    cut = _are_cut_off(boxes, mask.shape) & is_paper
    areas = np.where(_are_frames(labels, boxes), 0, boxes[:, cv2.CC_STAT_AREA])
    if cut.any() and min(mask.shape) >= stroke_metrics.SMALLEST:
        areas[_are_from_beyond(labels, boxes, areas, cut)] = 0
    keep = _are_no_specks(boxes, areas)
    keep &= ~_are_lines_below(boxes, keep)
    # More of them are noise, as stroke_metrics.is_written has it.
    if np.count_nonzero(keep) <= stroke_metrics.MOST_PIECES and not cut[keep].any():
        keep &= ~_are_of_a_finer_pen(labels, boxes, keep)
    if keep.all():
        return mask
    return np.asarray(np.concatenate(([False], keep)).astype(np.uint8)[labels], np.uint8)


def _are_cut_off(boxes: Boxes, shape: tuple[int, ...]) -> Choice:
    """Which come as near as a pixel to the picture's border."""
    left, top, right, bottom = _edges(boxes)
    return (left <= 1) | (top <= 1) | (right >= shape[1] - 1) | (bottom >= shape[0] - 1)


def _are_frames(labels: Labels, boxes: Boxes) -> Choice:
    """Which are printed boxes, or circles, that something is written in."""
    left, top, right, bottom = _edges(boxes)
    width, height = boxes[:, 2:4].T
    are = np.zeros(len(boxes), np.bool_)
    # What runs through the whole picture is the paper around a digit that fills it.
    is_within = (width < labels.shape[1] - 2) & (height < labels.shape[0] - 2)
    for frame in np.flatnonzero(is_within & (np.minimum(width, height) >= _LEAST_FRAME)):
        is_inside = (
            (left > left[frame]) & (right < right[frame]) & (top > top[frame]) & (bottom < bottom[frame])
        )
        written = np.flatnonzero(is_inside & (height > _WRITTEN * height[frame]))
        is_around = any(_is_around(labels == frame + 1, boxes[piece]) for piece in written)
        are[frame] = (
            is_around and stroke_metrics.thickness(_piece(labels, boxes, int(frame))) < _LINE * height[frame]
        )
    return are


def _is_around(frame: NDArray[np.bool_], box: Boxes) -> bool:
    """Whether the frame, bool [h, w], is on all four sides of the box and nowhere in it."""
    left, top, width, height = box[:4]
    rows, columns = frame[top : top + height], frame[:, left : left + width]
    sides = (
        rows[:, :left].any(axis=1),
        rows[:, left + width :].any(axis=1),
        columns[:top].any(axis=0),
        columns[top + height :].any(axis=0),
    )
    return not rows[:, left : left + width].any() and all(side.mean() > _BESIDE for side in sides)


def _are_from_beyond(labels: Labels, boxes: Boxes, areas: NDArray[np.int32], cut: Choice) -> Choice:
    """Which of those that the border cuts off are no part of a digit that is all on the picture."""
    none = np.zeros(len(boxes), np.bool_)
    lengths = _lengths(boxes)
    whole = np.where(~cut & (lengths > _STROKE * min(labels.shape)), areas, 0)
    digit = int(whole.argmax())
    if not whole.any() or not stroke_metrics.is_slim(_piece(labels, boxes, digit)):
        return none
    # Around a digit that fills the picture, with ink and paper taken for each other, the paper is cut off.
    large = _are_no_specks(boxes, areas)
    large[digit] = True
    paper = ~np.concatenate(([False], large))[labels]
    if stroke_metrics.thickness(paper) < _OPEN * labels.size**0.5:
        return none
    return np.asarray(cut & (_distances(labels, digit, len(boxes)) > _NEAR * lengths[digit]), np.bool_)


def _are_no_specks(boxes: Boxes, areas: NDArray[np.int32]) -> Choice:
    lengths, main = _lengths(boxes), int(areas.argmax())
    # A stroke is longer than it is wide; what is no longer than the pen is wide is a speck.
    length = lengths[main]
    shortest = max(0.12 * length, min(areas[main] / max(1, length), 0.2 * length))
    keep = (areas >= 0.02 * areas[main]) & (lengths >= shortest)
    keep[main] = True
    return np.asarray(keep, np.bool_)


def _are_lines_below(boxes: Boxes, keep: Choice) -> Choice:
    """Which one, if any, is a line under the others that are kept."""
    are = np.zeros(len(boxes), np.bool_)
    left, top, right, bottom = _edges(boxes)
    lowest = int(np.where(keep, top, -1).argmax())
    rest = keep.copy()
    rest[lowest] = False
    if rest.any():
        width, height = boxes[lowest, 2:4]
        are[lowest] = (
            height < _FLAT * width
            and top[lowest] >= bottom[rest].max() - height
            and left[rest].min() - left[lowest] > _BEYOND * width
            and right[lowest] - right[rest].max() > _BEYOND * width
        )
    return are


def _are_of_a_finer_pen(labels: Labels, boxes: Boxes, keep: Choice) -> Choice:
    """Which are much thinner than the largest, and beside it: what is left of a printed box, for one."""
    left, top, right, bottom = _edges(boxes)
    main = int(np.where(keep, boxes[:, cv2.CC_STAT_AREA], 0).argmax())
    is_inside = (left >= left[main]) & (right <= right[main]) & (top >= top[main]) & (bottom <= bottom[main])
    are = np.zeros(len(boxes), np.bool_)
    others = np.flatnonzero(keep & ~is_inside)
    if len(others):
        least = _THIN * stroke_metrics.thickness(_piece(labels, boxes, main))
        are[others] = [
            stroke_metrics.thickness(_piece(labels, boxes, int(other))) < least for other in others
        ]
    return are


def _edges(boxes: Boxes) -> tuple[NDArray[np.int32], ...]:
    """Left, top, right and bottom of each: four times int32 [n]."""
    left, top, width, height = boxes[:, :4].T
    return left, top, left + width, top + height


def _lengths(boxes: Boxes) -> NDArray[np.int32]:
    return np.maximum(boxes[:, cv2.CC_STAT_WIDTH], boxes[:, cv2.CC_STAT_HEIGHT])


def _distances(labels: Labels, piece: int, count: int) -> NDArray[np.float32]:
    """From each piece to that one, in pixels: [n]."""
    apart = cv2.distanceTransform((labels != piece + 1).astype(np.uint8), cv2.DIST_L2, 3)
    least = np.full(count + 1, np.inf, np.float32)
    np.minimum.at(least, labels.ravel(), apart.ravel())
    return least[1:]


def _piece(labels: Labels, boxes: Boxes, number: int) -> NDArray[np.bool_]:
    """The piece cropped to its box."""
    left, top, width, height = boxes[number, :4]
    return np.asarray(labels[top : top + height, left : left + width] == number + 1)
