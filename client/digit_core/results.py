"""Results: predictions and readings, the boxes and digits in them, and versions of models."""

import base64
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from digit_core.artifact.task_card import DIGIT_LABELS
from digit_core.errors import InvalidOutputError

if TYPE_CHECKING:
    import httpx

Refusal: TypeAlias = Literal["no_digit", "several_digits", "unsure"]
"""Reason why an image gets no label: nothing looks like a digit, several digits are shown, or the confidence
is below the task card's `refuse_below`."""

Orientation: TypeAlias = Literal[90, 180, 270]
"""Degrees by which a picture has to be turned clockwise to be upright."""

MIN_IS_DIGIT = 0.345
"""Default of the least `is_digit` of a digit. Training shifts the output so that 0.5 keeps 99.5 % of MNIST's
digits. Other people write less neatly: of 443 real digits 0.5 keeps 98.9 %, 0.345 keeps 99.5 %, and still
refuses 94.0 % of what is no digit (0.5: 95.1 %)."""
MIN_CONFIDENCE = 0.15
"""Least confidence of a digit from a model without the output `is_digit`; ten digits have 0.1 by chance. Such
a model gives a letter the digit that it resembles most, often with high confidence: a higher bar would refuse
digits and few letters."""

Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, width and height in pixels of the picture as sent, with its EXIF orientation applied."""


@dataclass(frozen=True, slots=True, repr=False)
class Prediction:
    """Predicted class of an image, or the refusal to name one, each with the model's numbers.

    `refusal` is "no_digit" if the image does not look like a digit, "several_digits" if it shows `count` of
    them, "unsure" if the confidence is below the task card's `refuse_below`, else None. `index` is the
    position of the most probable class in `labels`, of a refused image too. `probabilities` holds the
    probability of each class; they sum to 1, except those of a multi-label model: it has no `label`, but
    `predicted_labels`, those whose probabilities reach the card's thresholds. `is_digit` is the probability
    that the image shows a digit at all, or None from a model without this output. `confidence` is the
    probability of the class at `index`, multiplied by `is_digit` where the model gives it, and by the
    score of the reader where that found the digit: then `box` has the part of the image that shows the digit,
    else the answer stands for all ink. `model_version` is the version that answered.

    `request_id` is the ID of the request in the service's log, `request_index` the image's position in that
    request. `image` is the model's input as a PNG file if the call had `include="image"`, `response` the HTTP
    response of a client with `keep_response`; both are None otherwise. These four are not compared.
    """

    index: int
    confidence: float
    probabilities: tuple[float, ...]
    labels: tuple[str, ...]
    model_version: int
    is_digit: float | None = None
    refusal: Refusal | None = None
    count: int | None = None
    request_id: str | None = field(default=None, compare=False)
    image: bytes | None = field(default=None, compare=False, repr=False)
    response: "httpx.Response | None" = field(default=None, compare=False, repr=False)
    request_index: int = field(default=0, compare=False)
    predicted_labels: tuple[str, ...] | None = None
    box: Box | None = None

    def __repr__(self) -> str:
        answer = self.answer() | {"model_version": self.model_version, "request_id": self.request_id}
        hidden = {"digit", "index", *(name for name, value in answer.items() if value is None)}
        shown = ", ".join(f"{name}={value!r}" for name, value in answer.items() if name not in hidden)
        return f"Prediction({shown})"

    @property
    def label(self) -> str | None:
        """The most probable class, None for a refused image and from a multi-label model."""
        return None if self.refusal or self.predicted_labels is not None else self.labels[self.index]

    @property
    def digit(self) -> int | None:
        """The digit, 0 to 9; None for a refused image, and if the model's classes are not the ten digits."""
        return self.index if self.has_digit_labels and self.label is not None else None

    @property
    def has_digit_labels(self) -> bool:
        """True if the classes are the ten digits."""
        return self.labels == DIGIT_LABELS

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """Return the `count` most probable classes, each label with its probability, the first one first."""
        ranked = sorted(zip(self.labels, self.probabilities, strict=True), key=lambda pair: -pair[1])
        return ranked[:count]

    def looks_like_digit(self, min_is_digit: float = MIN_IS_DIGIT) -> bool:
        """True if `is_digit` is at least `min_is_digit`; where that is None, by the confidence."""
        if self.is_digit is None:
            return self.confidence >= MIN_CONFIDENCE
        return self.is_digit >= min_is_digit

    def answer(self) -> dict[str, Any]:
        """Return what was predicted as JSON values, without the probabilities of the classes.

        `digit` is there if the classes are the ten digits, `is_digit` if the model gives it, `count` if
        several digits are the refusal, `predicted_labels` from a multi-label model, `box` if the reader found
        the digit.
        """
        named = None if self.refusal or self.predicted_labels is not None else self.index
        answer: dict[str, Any] = {"label": None if named is None else self.labels[named]}
        if self.labels == DIGIT_LABELS:
            answer["digit"] = named
        answer |= {"refusal": self.refusal, "index": self.index, "confidence": self.confidence}
        if self.is_digit is not None:
            answer["is_digit"] = self.is_digit
        if self.count is not None:
            answer["count"] = self.count
        if self.predicted_labels is not None:
            answer["predicted_labels"] = self.predicted_labels
        if self.box is not None:
            answer["box"] = self.box
        return answer

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as JSON values, without the HTTP response; `image` is base64.

        Its members are those of `answer`, and the fields that are not None.
        """
        return self.answer() | _to_json(self)


Answer: TypeAlias = Prediction | InvalidOutputError
"""Model's answer to a row of a batch: a prediction, or the error in its place."""


@dataclass(frozen=True, slots=True)
class Digit:
    """One digit of a reading: the most probable of 0 to 9, the probabilities of all ten, and its box.

    `image` is the model's input as a PNG file if the call had `include="image"`, else None.
    """

    digit: int
    confidence: float
    probabilities: tuple[float, ...] = field(repr=False)
    box: Box
    image: bytes | None = field(default=None, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the digit as JSON values; `image` is base64."""
        return _to_json(self)


@dataclass(frozen=True, slots=True)
class Line:
    """Digits of one line, from left to right.

    `text` joins them, with a space where a wide gap parts two numbers; `box` encloses them. `separators` are
    the boxes of signs on the line, such as a point, a slash or a currency.
    """

    text: str
    box: Box
    digits: tuple[Digit, ...]
    separators: tuple[Box, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the line as JSON values."""
        return _to_json(self)


@dataclass(frozen=True, slots=True)
class Reading:
    """All digits on a picture, in lines from top to bottom.

    `text` joins the texts of the lines by line breaks. A picture without a digit has neither text nor lines,
    and the `refusal` "no_digit". `orientation` says by how many degrees the picture has to be turned
    clockwise to show a number; None if it is upright, or shows none any way up. `model_version` is the
    version of the model that answered. `request_id`, `response` and `request_index` are those of Prediction.
    """

    text: str
    lines: tuple[Line, ...]
    model_version: int
    request_id: str | None = field(default=None, compare=False)
    response: "httpx.Response | None" = field(default=None, compare=False, repr=False)
    request_index: int = field(default=0, compare=False)
    orientation: Orientation | None = None

    @property
    def digits(self) -> tuple[Digit, ...]:
        """The digits of all lines, in reading order."""
        return tuple(digit for line in self.lines for digit in line.digits)

    @property
    def confidence(self) -> float:
        """The mean confidence of the digits; 0 without any."""
        return sum(digit.confidence for digit in self.digits) / max(1, len(self.digits))

    @property
    def refusal(self) -> Refusal | None:
        """The reason why there is no text: "no_digit"."""
        return None if self.lines else "no_digit"

    def to_dict(self) -> dict[str, Any]:
        """Return the reading as JSON values, without the HTTP response."""
        return {"text": self.text, "refusal": self.refusal, **_to_json(self)}


Result = TypeVar("Result", Prediction, Reading)


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """Version of a model; `state` is UNKNOWN, START, LOADING, AVAILABLE, UNLOADING or END."""

    version: int
    state: str

    @property
    def is_available(self) -> bool:
        """True if the version answers predictions."""
        return self.state == "AVAILABLE"


def _to_json(result: Any) -> dict[str, Any]:
    """Return the fields of a result that are not None as JSON values, without the HTTP response."""
    values = {each.name: getattr(result, each.name) for each in fields(result) if each.name != "response"}
    return {name: _to_json_value(value) for name, value in values.items() if value is not None}


def _to_json_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, tuple):
        return [_to_json_value(item) for item in value]
    return _to_json(value) if is_dataclass(value) else value
