"""Records: a picture that a caller sent, the service's answer to it, and its label."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict

from digit_core.results import Box

WHOLE = -1
"""Position of a whole reading, which precedes its digits."""


def digest_of(picture: bytes, box: Box | None, *, is_whole: bool = False) -> str:
    """Return the hexadecimal SHA-256 of a picture and its box, which names what a label is about.

    A whole reading of one digit may share the picture and the box of its digit, but not the name.
    """
    place = (b"" if box is None else repr(box).encode()) + b"whole" * is_whole
    return hashlib.sha256(picture + place).hexdigest()


class Seen(TypedDict):
    """Presentation of a whole reading to a person who labels it."""

    boxes: list[Box]
    """Boxes of the digits in the record's picture, none of a refused reading."""
    candidates: list[str]
    """Texts that the picture may show, without probabilities; empty if there is only one."""


@dataclass(frozen=True)
class Record:
    """A picture that a caller sent, with the answer to it and, once known, its label.

    Model, digest and caller identify the record: a caller has one vote on a picture.
    """

    model: str
    picture: bytes
    """PNG file of what the label is about, with a margin, or of the whole picture: at most a megapixel."""
    box: Box | None
    """Place of what the label is about in `picture`; None stands for all of it."""
    version: int
    """Version that answered `predicted`."""
    predicted: str
    """Label that the model answers, NO_CLASS for a refusal."""
    confidence: float
    """Certainty of the answer, 0..1: the least sure pictures are labelled first."""
    request_id: str
    """ID of the latest sampled request, or the first with the picture. Callers may use an ID again."""
    sent_at: datetime
    """Time of that request, with a time zone."""
    index: int = 0
    """Position of the picture in that request."""
    position: int = 0
    """Position of the digit in the picture's reading, or WHOLE: labels are then numbers, by their digits."""
    caller: str = ""
    """Name of the API key that sent the picture, "" if no keys are required."""
    label: str | None = None
    """Label that the caller gave, NO_CLASS for none of the classes."""
    hand_label: str | None = None
    """Label that a person with the permission gave to a sample. It takes precedence."""
    reading: Seen | None = None
    """Presentation of a whole reading, None for a digit or a class."""
    held_out: bool | None = None
    """True if the picture tests a model and never trains it; the store decides it when it saves None."""

    @property
    def digest(self) -> str:
        """Name of what the label is about."""
        return digest_of(self.picture, self.box, is_whole=self.position == WHOLE)


@dataclass(frozen=True)
class Agreement:
    """Counts of one version of a model and one caller: pictures, those with a label, and those that agree."""

    model: str
    version: int
    caller: str
    pictures: int
    labelled: int
    agreeing: int
