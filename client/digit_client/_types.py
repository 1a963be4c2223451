"""Result types, and the options of a call."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypedDict

from digit_client.artifact.task_card import DIGIT_LABELS, TaskCard

if TYPE_CHECKING:
    import httpx

MIN_IS_DIGIT = 0.5
"""Least `is_digit` of a digit. Training shifts the output so that this is the threshold of every model."""
MIN_CONFIDENCE = 0.15
"""Least confidence of a digit from a model without the output `is_digit`; ten digits have 0.1 by chance. Such
a model gives a letter the digit that it resembles most, often with high confidence: a higher bar would refuse
digits and few letters."""


class CallOptions(TypedDict, total=False):
    """Keyword arguments of every call for an answer.

    `version` or `label` select the model's version by number or by label. `timeout` in seconds replaces the
    client's. `request_id` is sent as X-Request-ID, to be found in the service's log; without one, each
    request gets a random ID.
    """

    version: int | None
    label: str | None
    timeout: float | None
    request_id: str | None


class GatewayOptions(CallOptions, total=False):
    """Keyword arguments of every call for an answer of the gateway.

    `include="image"` adds the model's input to the result, as a PNG file.
    """

    include: Literal["image"] | None


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted class of an image.

    `index` is the position of the most probable class in `labels`. `probabilities` holds the probability of
    each class; they sum to 1. `is_digit` is the probability that the image shows a digit at all, or None from
    a model without this output. `confidence` is the probability of `label`, multiplied by `is_digit` where
    the model gives it. `model_version` is the version of the model that answered.

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
    request_id: str | None = field(default=None, compare=False)
    image: bytes | None = field(default=None, compare=False, repr=False)
    response: "httpx.Response | None" = field(default=None, compare=False, repr=False)
    request_index: int = field(default=0, compare=False)

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.labels[self.index]

    @property
    def digit(self) -> int:
        """The digit, 0 to 9. Raise AttributeError if the model's classes are not the ten digits."""
        if not self.has_digit_labels:
            raise AttributeError(f"the classes are not the ten digits; the label is {self.label!r}")
        return self.index

    @property
    def has_digit_labels(self) -> bool:
        """True if the classes are the ten digits, so that `digit` has a value."""
        return self.labels == DIGIT_LABELS

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """Return the `count` most probable classes, each label with its probability, the first one first."""
        ranked = sorted(zip(self.labels, self.probabilities, strict=True), key=lambda pair: -pair[1])
        return ranked[:count]

    @property
    def is_accepted(self) -> bool:
        """True if the image shows a digit: by `is_digit`, or by the confidence where that is None."""
        if self.is_digit is None:
            return self.confidence >= MIN_CONFIDENCE
        return self.is_digit >= MIN_IS_DIGIT


Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels of the picture as sent, with its EXIF orientation applied."""


@dataclass(frozen=True, slots=True)
class Digit:
    """One digit of a reading: the most probable of 0 to 9, the probabilities of all ten, and its box.

    `image` is the model's input as a PNG file if the call had `include="image"`, else None.
    """

    digit: int
    confidence: float
    probabilities: tuple[float, ...]
    box: Box
    image: bytes | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Line:
    """Digits of one line, from left to right; `text` joins them, `box` encloses them."""

    text: str
    box: Box
    digits: tuple[Digit, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """All digits on a picture, in lines from top to bottom.

    `text` joins the texts of the lines by line breaks. `model_version` is the version of the model that
    answered. `request_id`, `response` and `request_index` are those of Prediction.
    """

    text: str
    lines: tuple[Line, ...]
    model_version: int
    request_id: str | None = field(default=None, compare=False)
    response: "httpx.Response | None" = field(default=None, compare=False, repr=False)
    request_index: int = field(default=0, compare=False)

    @property
    def digits(self) -> tuple[Digit, ...]:
        """The digits of all lines, in reading order."""
        return tuple(digit for line in self.lines for digit in line.digits)


@dataclass(frozen=True, slots=True)
class Feedback:
    """Record that the service keeps of an answer after feedback.

    `request_id` and `index` are the ID of the answered request and the image's position in it. `inputs` is
    the number of the model's inputs that are kept, each with its label: one, or one for each digit of a
    reading. `original` is True if the image as sent is kept, too. `response` is that of Prediction.
    """

    request_id: str
    index: int
    inputs: int
    original: bool
    response: "httpx.Response | None" = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """Version of a model; `state` is UNKNOWN, START, LOADING, AVAILABLE, UNLOADING or END."""

    version: int
    state: str

    @property
    def is_available(self) -> bool:
        """True if the version answers predictions."""
        return self.state == "AVAILABLE"


@dataclass(frozen=True, slots=True)
class Models:
    """A model of the service: its versions, the version of each label, and its task card.

    `task` is None while no version answers. `models` has the names of all models of the service, the default
    one first. `request_id` and `response` are those of Prediction.
    """

    name: str
    versions: tuple[ModelVersion, ...]
    labels: Mapping[str, int]
    task: TaskCard | None
    models: tuple[str, ...]
    request_id: str | None = field(default=None, compare=False)
    response: "httpx.Response | None" = field(default=None, compare=False, repr=False)
