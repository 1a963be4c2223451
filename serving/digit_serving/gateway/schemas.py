"""Response documents as types: mypy checks the handlers, and tests compare the schemas in openapi.json."""

from collections.abc import Sequence
from typing import Literal, NotRequired, TypedDict


class Model(TypedDict):
    """The model that answered, with the names of its classes."""

    name: str
    version: int
    labels: Sequence[str]


class RankedClass(TypedDict):
    """One of the most probable classes."""

    label: str
    index: int
    probability: float


class Prediction(TypedDict):
    """The class of one image.

    Only models whose classes are the ten digits have `digit`, only those with the output `is_digit` have it.
    `top` replaces `probabilities` on request. `labels`, the probability of each label, and `image`, a PNG in
    base64, are added on request.
    """

    label: str
    index: int
    confidence: float
    probabilities: NotRequired[Sequence[float]]
    top: NotRequired[list[RankedClass]]
    digit: NotRequired[int]
    is_digit: NotRequired[float]
    labels: NotRequired[dict[str, float]]
    image: NotRequired[str]


class Predictions(TypedDict):
    """A prediction for each image, in the order of the request."""

    model: Model
    predictions: list[Prediction]
    request_id: str


class Digit(TypedDict):
    """A digit of a line; `box` is left, top, width and height in pixels, `image` a PNG in base64."""

    digit: int
    confidence: float
    probabilities: Sequence[float]
    box: Sequence[int]
    image: NotRequired[str]


class Line(TypedDict):
    """A line of digits, from left to right."""

    text: str
    box: Sequence[int]
    digits: list[Digit]


class Reading(TypedDict):
    """The digits on one image, in lines from top to bottom."""

    text: str
    lines: list[Line]


class Readings(TypedDict):
    """A reading of each image, in the order of the request."""

    model: Model
    readings: list[Reading]
    request_id: str


class ModelVersion(TypedDict):
    """A version of the model; `state` is a name of ModelVersionStatus.State."""

    version: int
    state: str


class Models(TypedDict):
    """A model's versions, the version of each label, and its task card: null while no version answers.

    `models` are the names of all models. `feedback` is true if answers can get feedback.
    """

    name: str
    versions: list[ModelVersion]
    labels: dict[str, int]
    task: dict[str, object] | None
    models: Sequence[str]
    feedback: bool
    request_id: str


class FeedbackEntry(TypedDict):
    """Feedback that was stored: `inputs` is the number of the model's inputs that have labels now.

    `original` is true if the picture as sent was stored as well.
    """

    request_id: str
    index: int
    inputs: int
    original: bool


class FeedbackReceipt(TypedDict):
    """Receipt of feedback."""

    feedback: FeedbackEntry
    request_id: str


class LabellingRecord(TypedDict):
    """Stored answer that waits for a label; `image` is the model's input, a PNG in base64."""

    request_id: str
    index: int
    position: int
    revision: str
    image: str


class LabellingRecords(TypedDict):
    """Stored answers that wait for a label, and the numbers of those that got one by hand and that wait.

    `next` is the value of `above` for further answers, null if there are no others.
    """

    records: list[LabellingRecord]
    next: float | None
    labelled: int
    unlabelled: int
    request_id: str


class LabellingReceipt(TypedDict):
    """Receipt of a label, null after a withdrawal; the answer has another revision now."""

    label: str | None
    revision: str
    request_id: str


class Index(TypedDict):
    """The service's name, version and paths."""

    name: str
    version: str
    links: dict[str, str]


class Alive(TypedDict):
    """The process is alive."""

    status: Literal["alive"]


class Ready(TypedDict):
    """The gateway can answer predictions. `warnings` are sentences on stores that can't be reached."""

    status: Literal["ready"]
    versions: list[int]
    warnings: NotRequired[list[str]]


class Problem(TypedDict):
    """Problem details (RFC 9457).

    `index` is the position of the image that caused the error, from 0, and `count` its number of digits.
    """

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str
    index: NotRequired[int]
    count: NotRequired[int]
