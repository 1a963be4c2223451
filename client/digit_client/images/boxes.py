"""Geometry of boxes: left, top, width and height in pixels."""

from collections.abc import Iterable, Sequence

from digit_client._types import Box


def enclose(boxes: Iterable[Box]) -> Box:
    """Return the smallest box around all boxes, of which there is at least one."""
    lefts, tops, widths, heights = zip(*boxes, strict=True)
    left, top = min(lefts), min(tops)
    right = max(start + length for start, length in zip(lefts, widths, strict=True))
    bottom = max(start + length for start, length in zip(tops, heights, strict=True))
    return left, top, right - left, bottom - top


def gaps(box: Box, other: Box) -> tuple[int, int]:
    """Return the distance of two boxes from left to right and from top to bottom; below 0 they overlap."""
    return (
        max(box[0], other[0]) - min(box[0] + box[2], other[0] + other[2]),
        max(box[1], other[1]) - min(box[1] + box[3], other[1] + other[3]),
    )


def contains(box: Box, other: Box) -> bool:
    """True if the other box lies in the box."""
    return enclose((box, other)) == box


def slices(box: Sequence[int]) -> tuple[slice, slice]:
    """Return the rows and columns of a box."""
    left, top, width, height = box[:4]
    return slice(top, top + height), slice(left, left + width)
