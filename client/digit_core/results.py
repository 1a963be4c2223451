"""Results of calls: each member of an answer is described once, by a field and its docstring.

JSON, the client's parser, the OpenAPI document, and the columns of Parquet and CSV follow from these fields.
"""

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, is_dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

from digit_core.artifact.task_card import DIGIT_LABELS, MAX_LABELS, TaskCard
from digit_core.errors import InvalidOutputError
from digit_core.schema import Schema, Share

if TYPE_CHECKING:
    import httpx

    Response: TypeAlias = httpx.Response
else:
    # Annotations are evaluated, and httpx takes long to import.
    Response = Any

MIN_IS_DIGIT = 0.345
"""Default of the least `is_digit` of a digit. Training shifts the output so that 0.5 keeps 99.5 % of MNIST's
digits. Other people write less neatly: 0.345 keeps all of 139 real digits, and still refuses 94.3 % of 900
other pictures."""
MIN_CONFIDENCE = 0.15
"""Least confidence of a digit from a model without the output `is_digit`; ten digits have 0.1 by chance. Such
a model gives a letter the digit that it resembles most, often with high confidence: a higher bar would refuse
digits and few letters."""


VersionNumber = Annotated[int, Schema(minimum=0, format="int64", examples=[1])]
ClassIndex = Annotated[int, Schema(minimum=0, exclusiveMaximum=MAX_LABELS)]
DigitNumber = Annotated[int, Schema(minimum=0, maximum=9)]
_SIDE = {"type": "integer", "minimum": 0}
Box = Annotated[
    tuple[int, int, int, int],
    Schema(type="array", items=_SIDE, minItems=4, maxItems=4, examples=[[12, 8, 20, 31]]),
]
"""Left, top, width and height in pixels of the image as sent, with its EXIF orientation applied."""
_MAX_QUOTED = 20
_NUMBER = re.compile(r"[0-9]{1,9}")
PNG = Schema(type="string", contentEncoding="base64", contentMediaType="image/png")
Refusal = Annotated[str, Schema(enum=["no_digit", "several_digits", "unsure", "unexpected"])]
"""Reason why an image gets no label; later services may have others."""
Orientation = Annotated[int, Schema(enum=[90, 180, 270])]
"""Degrees by which a picture has to be turned clockwise to be upright."""

_NULL = {"null": True}
"""Metadata of a field that is null in JSON if it is None; JSON omits other fields then."""
_OF_CALL = {"of_call": True}
"""Metadata of a field that the gateway's answers say once for all results, or not at all."""
_ON_REQUEST = {"on_request": True}
"""Metadata of a field that an answer has only if the request asks for it."""
_SCALARS = {str, int, float, bool}


def parse_box(text: str) -> Box:
    """Return the box in a text: left,top,width,height. Raise ValueError."""
    numbers = text.split(",")
    if len(numbers) != 4:
        raise ValueError(f"a box has four numbers: left,top,width,height, not {len(numbers)}")
    for name, number in zip(("left", "top", "width", "height"), numbers, strict=True):
        if not _NUMBER.fullmatch(number):
            reason = "counts from the picture's upper left corner, so it" if number[:1] == "-" else "of a box"
            raise ValueError(f"{name} {reason} must be a whole number from 0, not {number[:_MAX_QUOTED]!r}")
    left, top, width, height = map(int, numbers)
    return left, top, width, height


class _Result:
    """Base of results that have a JSON object."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values, without response, picture and None; files are base64."""
        return to_json(self)


@dataclass(frozen=True, slots=True, repr=False)
class Prediction(_Result):
    """The class of one image, or the refusal of an image without a digit or with several."""

    label: str | None = field(init=False, default=None, compare=False, metadata=_NULL)
    """The most probable class; null if the image is refused, and from a multi-label model."""
    digit: DigitNumber | None = field(
        init=False, default=None, compare=False, repr=False, metadata={"null": "has_digit_labels"}
    )
    """The most probable digit, null if the image is refused; only if the classes are the ten digits."""
    refusal: Refusal | None = field(default=None, kw_only=True, metadata=_NULL)
    """Reason for which the image is refused: `no_digit` and `several_digits` by models of digits, `unsure` if
    the confidence is below the task card's `refuse_below`, or the certainty below the least one that the
    request asks for. Later services may have other reasons."""
    index: ClassIndex = field(repr=False)
    """Position of the most probable class in the model's labels, also of a refused image."""
    confidence: Share
    """Probability of the class at `index`; for digits, given that the image shows one."""
    is_digit: Share | None = field(default=None, kw_only=True)
    """Measure of whether the image shows a digit at all, by a model that learns it, and by the reader if it
    was asked. An image with less than `min_is_digit` is refused; one on which nothing is written has 0."""
    count: Annotated[int, Schema(minimum=2)] | None = field(default=None, kw_only=True)
    """Number of digits on an image that is refused as `several_digits`; `/v1/read` reads them."""
    predicted_labels: tuple[str, ...] | None = field(default=None, kw_only=True)
    """Labels whose probabilities reach their thresholds, of a multi-label model only."""
    box: Box | None = field(default=None, kw_only=True)
    """Left, top, width and height of the digit, in pixels of the image as sent, with its EXIF orientation
    applied, if the reader found the digit; otherwise the answer stands for all ink of the image."""
    probabilities: Annotated[tuple[Share, ...], Schema(minItems=2, maxItems=MAX_LABELS)] = field(repr=False)
    """Probability of each class, in the order of the model's labels. Those of digits hold given that the
    image shows one; those of a multi-label model don't sum to 1."""
    labels: tuple[str, ...] = field(repr=False, metadata=_OF_CALL)
    """Names of the model's classes."""
    model_version: int = field(metadata=_OF_CALL)
    """Version of the model that answered."""
    request_id: str | None = field(default=None, compare=False, metadata=_OF_CALL)
    """ID of the request in the service's log."""
    image: Annotated[bytes, PNG] | None = field(default=None, compare=False, repr=False, metadata=_ON_REQUEST)
    """The model's input, if requested by `include=image`: a PNG of the shape in the task card; for digits
    28×28, light ink on dark."""
    response: Response | None = field(default=None, compare=False, repr=False)
    """HTTP response, from a client with `keep_response`."""
    picture: bytes | None = field(default=None, compare=False, repr=False)
    """Image file as sent, from a client with `keep_picture`."""
    request_index: int = field(default=0, compare=False, repr=False, metadata=_OF_CALL)
    """Position of the image in the request."""

    def __post_init__(self) -> None:
        if self.refusal is None and self.predicted_labels is None:
            object.__setattr__(self, "label", self.labels[self.index])
            if self.labels == DIGIT_LABELS:
                object.__setattr__(self, "digit", self.index)

    def __repr__(self) -> str:
        shown = {each.name: getattr(self, each.name) for each in fields(self) if each.repr}
        values = (f"{name}={value!r}" for name, value in shown.items() if value is not None)
        return f"Prediction({', '.join(values)})"

    @property
    def has_digit_labels(self) -> bool:
        """True if the classes are the ten digits."""
        return self.labels == DIGIT_LABELS

    @property
    def certainty(self) -> float:
        """Probability that the answer is right and shows a digit at all: `confidence` times `is_digit`."""
        return self.confidence * (1.0 if self.is_digit is None else self.is_digit)

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """Return the `count` most probable classes, each label with its probability, the best one first."""
        ranked = sorted(zip(self.labels, self.probabilities, strict=True), key=lambda pair: -pair[1])
        return ranked[:count]

    def looks_like_digit(self, min_is_digit: float = MIN_IS_DIGIT) -> bool:
        """True if `is_digit` is at least `min_is_digit`; without `is_digit`, the confidence decides."""
        if self.is_digit is None:
            return self.confidence >= MIN_CONFIDENCE
        return self.is_digit >= min_is_digit


Answer: TypeAlias = Prediction | InvalidOutputError
"""Model's answer to a row of a batch: a prediction, or the error in its place."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """Classification of a digit by one network alone."""

    digit: DigitNumber
    """The most probable digit."""
    confidence: Share
    """Probability of `digit`."""
    probabilities: Annotated[tuple[Share, ...], Schema(minItems=10, maxItems=10)] = field(repr=False)
    """Probability of each digit, 0 to 9."""


@dataclass(frozen=True, slots=True)
class Opinions:
    """Opinions of both networks on a digit, which are mixed into its probabilities."""

    classifier: Opinion
    """By the classifier, the model that the request names, on the digit's crop."""
    reader: Opinion | None = None
    """By the reader, on the page; missing for a drawing, on which the reader is not asked."""


@dataclass(frozen=True, slots=True)
class Digit(_Result):
    """A digit of a line."""

    digit: DigitNumber
    """The most probable digit."""
    confidence: Share
    """Probability of `digit`, given that the box shows a digit."""
    probabilities: Annotated[tuple[Share, ...], Schema(minItems=10, maxItems=10)] = field(repr=False)
    """Probability of each digit, 0 to 9, given that the box shows one."""
    is_digit: Share = field(kw_only=True)
    """Measure of whether the box shows a digit at all, by reader and classifier together."""
    box: Box
    """Left, top, width and height in pixels of the image as sent, with its EXIF orientation applied."""
    opinions: Opinions | None = field(
        default=None, kw_only=True, compare=False, repr=False, metadata=_ON_REQUEST
    )
    """Digit that each network alone sees, if requested by `include=opinions`."""
    image: Annotated[bytes, PNG] | None = field(default=None, compare=False, repr=False, metadata=_ON_REQUEST)
    """The model's input, if requested by `include=image`: a PNG, 28×28, light ink on dark."""

    @property
    def certainty(self) -> float:
        """Probability that the box shows this digit: `confidence` times `is_digit`."""
        return self.confidence * self.is_digit


@dataclass(frozen=True, slots=True)
class Line(_Result):
    """A line of digits, from left to right."""

    text: Annotated[str, Schema(examples=["2026", "9 10 11"])]
    """The digits, with a space where a wide gap separates two numbers, and with the signs of an expected
    pattern."""
    confidence: Share = field(kw_only=True)
    """Probability that `text` is right."""
    box: Box
    """Rectangle around the digits."""
    digits: Annotated[tuple[Digit, ...], Schema(minItems=1)]
    separators: tuple[Box, ...] = ()
    """Boxes of signs on the line, such as a point, a slash or a currency, from left to right."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A text that an image may show."""

    text: str
    """Text in the form of a reading's."""
    probability: Share
    """Probability that the text is right."""


@dataclass(frozen=True, slots=True)
class Reading(_Result):
    """The digits on one image, in lines from top to bottom; none if the image is refused."""

    text: Annotated[str, Schema(examples=["2026", "17\n42"])]
    """The texts of the lines, joined by line breaks."""
    confidence: Share = field(kw_only=True)
    """Probability that `text` is right: the product of the lines' confidences; 0 if nothing is read."""
    lines: tuple[Line, ...]
    refusal: Refusal | None = field(default=None, kw_only=True, metadata=_NULL)
    """`no_digit` if nothing on the image looks like a digit, `unexpected` if it is more probable that nothing
    fits what was expected, `unsure` if the confidence is below the least one, or several texts fit. Later
    services may have other reasons."""
    candidates: tuple[Candidate, ...] = field(default=(), kw_only=True)
    """The most probable texts, up to five, the best one first: that of the reading and its alternatives, or
    the texts that were seen if the reading is `unexpected`."""
    orientation: Orientation | None = field(default=None, kw_only=True)
    """Degrees by which the image has to be turned clockwise to be read; only if it is not upright, and shows
    a number that way up."""
    is_turned: bool | None = field(default=None, kw_only=True)
    """True if the image was turned by `orientation` before it was read; boxes are those of the image as
    sent."""
    box: Box | None = field(default=None, kw_only=True)
    """Part of the image that was read, if it is a field of a form."""
    text_as_sent: str | None = field(default=None, kw_only=True)
    """Text of the image before it was turned; only if `is_turned`."""
    model_version: int = field(metadata=_OF_CALL)
    """Version of the model that answered."""
    request_id: str | None = field(default=None, compare=False, metadata=_OF_CALL)
    """ID of the request in the service's log."""
    response: Response | None = field(default=None, compare=False, repr=False)
    """HTTP response, from a client with `keep_response`."""
    picture: bytes | None = field(default=None, compare=False, repr=False)
    """Image file as sent, from a client with `keep_picture`."""
    request_index: int = field(default=0, compare=False, metadata=_OF_CALL)
    """Position of the image in the request."""
    # The last one: it hides the function `field`.
    field: str | None = field(default=None, kw_only=True)
    """Name of the field, if the request has a form."""

    def __post_init__(self) -> None:
        if not self.lines and self.refusal is None:
            object.__setattr__(self, "refusal", "no_digit")

    @property
    def digits(self) -> tuple[Digit, ...]:
        """The digits of all lines, in reading order."""
        return tuple(digit for line in self.lines for digit in line.digits)


Result = TypeVar("Result", Prediction, Reading)


@dataclass(frozen=True, slots=True)
class Network:
    """A version's network, from its model card."""

    name: str | None = field(default=None, metadata=_NULL)
    """Name of the network; null if the model card does not give it."""
    accuracy: Share | None = field(default=None, metadata=_NULL)
    """Accuracy on its test set; null if it was not tested."""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version of the model and its state."""

    version: VersionNumber
    state: Annotated[str, Schema(enum=["UNKNOWN", "START", "LOADING", "AVAILABLE", "UNLOADING", "END"])]
    """State in the version's life cycle."""
    network: Network | None = field(default=None, kw_only=True)
    """The network, if the version names it."""

    @property
    def is_available(self) -> bool:
        """True if the version answers predictions."""
        return self.state == "AVAILABLE"


@dataclass(frozen=True, slots=True)
class Models:
    """A model's versions, the version of each label, and its task."""

    name: str
    versions: tuple[ModelVersion, ...]
    version_labels: Mapping[str, VersionNumber]
    """Version of each version label."""
    labels: Annotated[Mapping[str, VersionNumber], Schema(deprecated=True)]
    """`version_labels` by its earlier name."""
    task: TaskCard | None = field(metadata=_NULL)
    """Task card of the default version; null while no version answers."""
    models: Annotated[tuple[str, ...], Schema(minItems=1)]
    """Names of the models that the service lists, the default one first, and of this one."""
    traffic: Mapping[str, Share] = field(default_factory=dict)
    """Share of the requests without version and label that a version label answers; the default version
    answers the rest."""
    feedback: bool = False
    """True if /v1/feedback takes labels of pictures for this model."""
    max_body: Annotated[int, Schema(minimum=1)] | None = None
    """Largest body of a request, in bytes."""
    request_id: str | None = field(default=None, compare=False, metadata=_OF_CALL)
    """ID of the request in the service's log."""
    response: Response | None = field(default=None, compare=False, repr=False)
    """HTTP response, from a client with `keep_response`."""


def add_images(result: Result, files: Sequence[bytes]) -> Result:
    """Return the result with the model's inputs as PNG files: one for each digit of a reading, or none."""
    if not files:
        return result
    if isinstance(result, Prediction):
        return replace(result, image=files[0])
    remaining = iter(files)
    lines = [
        replace(line, digits=tuple(replace(digit, image=next(remaining)) for digit in line.digits))
        for line in result.lines
    ]
    return replace(result, lines=tuple(lines))


def to_json(result: Any, of_call: bool = True, numbers: Callable[[Any], Any] | None = None) -> dict[str, Any]:
    """Return the JSON object of a result, with the fields of the call or without; files are base64.

    `numbers` converts a float, and a tuple of them.
    """
    document = {}
    kind: Any = type(result)
    for name, null in _members(kind, of_call):
        value = getattr(result, name)
        if type(value) is float and numbers:
            document[name] = numbers(value)
        elif value is not None:
            document[name] = value if type(value) in _SCALARS else _to_value(value, of_call, numbers)
        elif null is True or (null and getattr(result, null)):
            document[name] = None
    return document


def _to_value(value: Any, of_call: bool, numbers: Callable[[Any], Any] | None) -> Any:
    if isinstance(value, tuple):
        first = type(value[0]) if value else None
        if first is float and numbers:
            return numbers(value)
        return list(value) if first in _SCALARS else [_to_value(item, of_call, numbers) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, TaskCard):
        return value.to_document()
    return to_json(value, of_call, numbers) if is_dataclass(value) else value


@cache
def _members(kind: Any, of_call: bool) -> list[tuple[str, Any]]:
    """Return the names of `members`, each with its metadata `null`."""
    return [(each.name, each.metadata.get("null")) for each in members(kind, of_call)]


def members(kind: Any, of_call: bool = False) -> list[Field[Any]]:
    """Return the fields that JSON has, with those of the call or without."""
    named = [each for each in fields(kind) if each.name not in ("response", "picture")]
    return [each for each in named if of_call or not each.metadata.get("of_call")]
