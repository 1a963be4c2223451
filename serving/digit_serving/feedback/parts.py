"""Parts: what is stored of a picture, small and without metadata, and the records of parts."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from digit_core import images
from digit_core.artifact.task_card import NO_CLASS, TaskCard
from digit_core.errors import ImageShapeError, NoInkError
from digit_core.feedback.records import WHOLE, Record
from digit_core.images import MAX_PIXELS, Pixels
from digit_core.reading.boxes import enclose
from digit_core.results import Box, Candidate, Digit, Prediction

_MARGIN = 0.5
"""Margin on each side of a box, as a share of its longer side: later versions may crop digits wider."""
_MAX_STORED_PIXELS = 1_000_000
"""Most pixels of all parts of a picture together: boxes may overlap, and each may cover all of it."""


@dataclass(frozen=True, slots=True)
class Part:
    """Part of a picture: the pixels around a box, and the box in them; None stands for all of them."""

    pixels: Pixels
    box: Box | None
    png: bytes
    """PNG file of the pixels."""

    def prepare(self, task: TaskCard) -> Pixels:
        """Return the model's input, black if nothing is written. Raise ImageError."""
        try:
            return images.prepare(self.pixels, task, self.box)
        except NoInkError:
            return np.zeros(task.shape, np.uint8)


def cut(
    picture: bytes | Pixels,
    boxes: Sequence[Box | None],
    *,
    around: Sequence[Box] | None = None,
    max_pixels: int = MAX_PIXELS,
    exif: bool = True,
) -> list[Part]:
    """Return the part of a picture that each box shows, with a margin, and of None the whole picture.

    Boxes are in pixels of the picture as sent. The parts share a megapixel. With the boxes `around`, or none,
    a part with all of them, or the whole picture, comes first, and has a megapixel of its own. Raise
    ImageError, also for a box outside of the picture.
    """
    if isinstance(picture, bytes):
        file = images.open_image(picture, max_pixels=max_pixels, exif=exif)
        pixels, size = file.decode(), file.size
    else:
        pixels, size = picture, picture.shape[:2]
    parts = [_cut(pixels, size, box, _MAX_STORED_PIXELS // len(boxes)) for box in boxes]
    if around is None:
        return parts
    margin = max((_MARGIN * max(width, height) for _, _, width, height in around), default=0.0)
    return [_cut(pixels, size, enclose(around) if around else None, _MAX_STORED_PIXELS, margin), *parts]


def to_records(
    parts: Sequence[Part], answers: Sequence[Prediction | Digit | None], **common: Any
) -> Iterator[Record]:
    """Yield the record of each part with its answer, None for an empty reading, and the common fields."""
    for position, (part, answer) in enumerate(zip(parts, answers, strict=True)):
        label = None
        if answer:
            label = answer.label if isinstance(answer, Prediction) else str(answer.digit)
        yield Record(
            picture=part.png,
            box=part.box,
            predicted=NO_CLASS if label is None else label,
            confidence=answer.certainty if answer else 0.0,
            position=position,
            **common,
        )


def to_whole(
    part: Part,
    digits: Sequence[Record],
    confidence: float,
    boxes: Sequence[Box] = (),
    candidates: Sequence[Candidate] = (),
) -> Record:
    """Return the record of a whole reading, of the part around its boxes and the records of its digits.

    Sort the candidates as text, so that their order does not reveal the answer: most others lack a digit, so
    that the largest number often is the answer. A single candidate would reveal it too.
    """
    texts = sorted(each.text for each in candidates)
    return replace(
        digits[0],
        picture=part.png,
        box=part.box,
        predicted="".join(digit.predicted for digit in digits),
        confidence=confidence,
        position=WHOLE,
        reading={"boxes": _places(boxes, part.box), "candidates": texts if len(texts) > 1 else []},
    )


def _places(boxes: Sequence[Box], place: Box | None) -> list[Box]:
    """Return the boxes in a part where the box around all of them has this place."""
    if place is None or not boxes:
        return []
    left, top, width, height = enclose(boxes)
    across, down = place[2] / width, place[3] / height
    return [
        (
            place[0] + round((box[0] - left) * across),
            place[1] + round((box[1] - top) * down),
            max(1, round(box[2] * across)),
            max(1, round(box[3] * down)),
        )
        for box in boxes
    ]


def _cut(
    pixels: Pixels, size: tuple[int, ...], box: Box | None, most: int, margin: float | None = None
) -> Part:
    """Return the part with at most `most` pixels; the margin is in pixels of the picture as sent."""
    if box is None:
        return _shrink(pixels, None, most)
    height, width = pixels.shape[:2]
    down, across = height / size[0], width / size[1]
    left, top = math.floor(box[0] * across), math.floor(box[1] * down)
    right = min(width, math.ceil((box[0] + box[2]) * across))
    bottom = min(height, math.ceil((box[1] + box[3]) * down))
    if left >= right or top >= bottom:
        raise ImageShapeError(f"the box {list(box)} shows nothing of the picture, {size[1]}×{size[0]} pixels")
    edge = math.ceil(_MARGIN * max(right - left, bottom - top) if margin is None else margin * across)
    rows, columns = slice(max(0, top - edge), bottom + edge), slice(max(0, left - edge), right + edge)
    place = left - columns.start, top - rows.start, right - left, bottom - top
    return _shrink(pixels[rows, columns], place, most)


def _shrink(pixels: Pixels, box: Box | None, most: int) -> Part:
    """Return the part with at most `most` pixels."""
    height, width = pixels.shape[:2]
    factor = math.sqrt(most / (height * width))
    if factor < 1:
        rows = min(most, max(1, int(height * factor)))
        columns = max(1, min(int(width * factor), most // rows))
        pixels = np.asarray(cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)
        if box is not None:
            left, top, *sides = (int(value * factor) for value in box)
            box = left, top, max(1, sides[0]), max(1, sides[1])
    return Part(pixels, box, images.to_png(pixels))
