"""Records of feedback for tests."""

from datetime import UTC, datetime, timedelta
from typing import Any

from numpy.typing import NDArray

from digit_core.feedback.records import Record
from digit_core.images import to_png

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
