"""Records of feedback for tests."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from digit_core.feedback.records import WHOLE, Record, Seen
from digit_core.images import to_png
from digit_core.results import Box

START = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(days=2)
"""Time of the first request: samples of a month ago would be deleted."""


def make_record(number: int, image: NDArray[Any], label: str | None = None, **fields: Any) -> Record:
    """Return the record of request `number`, sent `number` minutes after START."""
    values: dict[str, Any] = {
        "model": "digits",
        "picture": to_png(image),
        "box": None,
        "version": 1,
        "predicted": "2",
        "confidence": 0.75,
        "request_id": f"request-{number}",
        "sent_at": START + timedelta(minutes=number),
        "label": label,
        "held_out": False,
    }
    return Record(**(values | fields))


def sample(number: int, confidence: float = 0.5, **fields: Any) -> Record:
    """Return an unsure answer; the mean of its picture is its number."""
    picture = np.full((28, 28), number, np.uint8)
    return make_record(number, picture, predicted="7", confidence=confidence, **fields)


def sample_reading(digits: str, **fields: Any) -> list[Record]:
    """Return an unsure answer to a picture of a number: the whole reading and its digits."""
    common: dict[str, Any] = {"request_id": "reading", "sent_at": START} | fields
    boxes: list[Box] = [(10 * place, 0, 9, 9) for place in range(len(digits))]
    parts = [
        replace(sample(100 + place, position=place, **common), predicted=digit)
        for place, digit in enumerate(digits)
    ]
    reading = Seen(boxes=boxes, candidates=["17", "77"])
    whole = replace(parts[0], position=WHOLE, predicted=digits, reading=reading, confidence=0.25)
    return [whole, *parts]
