"""Records: one input of a model, its answer and its label."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Kind = Literal["predict", "read"]
Source = Literal["feedback", "sample", "label"]


@dataclass(frozen=True)
class Record:
    """One input of a model, with its answer and, once known, its label.

    `request_id`, `index`, `position` and `caller` identify the record: callers choose request IDs.
    """

    request_id: str
    index: int
    """Position of the picture in the request."""
    position: int
    """Position of the digit in the picture's reading; 0 if the kind is `predict`."""
    kind: Kind
    model: str
    version: int
    predicted: str
    """Label that the model answered, NO_CLASS of a refusal and of an empty reading."""
    confidence: float
    """Probability of the most probable label, 0..1."""
    is_digit: float | None
    """Probability that the input shows one digit, 0..1; None if the model does not answer it."""
    input: bytes
    """PNG of the model's input: grey [h, w] or RGB [h, w, 3]."""
    answered_at: datetime
    """Time of the answer, with a time zone."""
    held_out: bool | None = None
    """True if the record tests a model and never trains it; the store decides it when it saves None."""
    caller: str = ""
    """Name of the API key that sent the request, "" if no keys are required."""
    label: str | None = None
    """Label that a person gave, NO_CLASS for none of the classes; None if there is no label."""
    labelled_at: datetime | None = None
    """Time at which the label was given or withdrawn, with a time zone."""
    source: Source | None = None
    """Origin of the record in a store: a caller's feedback, a sample of unsure answers, or labelling."""
    text: str | None = None
    """Right text of the whole reading, of its first input with feedback."""
    original: bytes | None = None
    """The picture as sent, if originals are kept."""

    @property
    def digest(self) -> str:
        """SHA-256 of the input, which names it: hexadecimal."""
        return hashlib.sha256(self.input).hexdigest()


@dataclass(frozen=True)
class Agreement:
    """Counts of the records of one version of a model and one caller.

    An input that was sent several times counts once among the labelled ones, and agrees if the caller's
    newest label is the predicted one.
    """

    model: str
    version: int
    caller: str
    records: int
    labelled: int
    agreeing: int
