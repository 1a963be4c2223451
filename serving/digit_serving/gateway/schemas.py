"""JSON documents as types: mypy checks the handlers, and the OpenAPI document is generated from them."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, Field

# pydantic needs this one before Python 3.12.
from typing_extensions import TypedDict

from digit_core import results
from digit_core.artifact.task_card import MAX_LABELS
from digit_core.results import ClassIndex, VersionNumber

REQUEST_ID_PATTERN = r"[A-Za-z0-9._:-]{1,128}"
"""Request IDs that are accepted from callers."""

RequestId = Annotated[
    str, Field(pattern=f"^{REQUEST_ID_PATTERN}$", examples=["3f2b8c1e9d4a4f0c8a57e6b1d2c3f405"])
]


def matching(pattern: str, description: str) -> AfterValidator:
    """Return a validator of texts that match a pattern; `description` says what other texts are not."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value, re.ASCII):
            raise ValueError(f"{value!r} is not {description}")
        return value

    return AfterValidator(check)


VersionLabel = Annotated[
    str, matching(r"[\w.-]*", "a version's label, such as stable: a label has letters, digits, _, . and -")
]
Share = Annotated[float, Field(ge=0, le=1)]
Labels = Annotated[Sequence[str], Field(min_length=2, max_length=MAX_LABELS)]
Png = Annotated[str, results.PNG]
EncodedFile = Annotated[
    str,
    Field(
        description="An image file in base64, or as a data: URL.",
        json_schema_extra={"format": "byte", "contentEncoding": "base64", "contentMediaType": "image/*"},
    ),
]


class Problem(TypedDict):
    """Problem details (RFC 9457)."""

    type: str
    title: str
    """Reason phrase of the status."""
    status: Annotated[int, Field(ge=400, le=599)]
    code: str
    """Stable identifier of the error, for programs."""
    detail: str
    """Explanation of the error, for people."""
    request_id: RequestId


class Images(TypedDict):
    """Image files."""

    images: Annotated[Sequence[EncodedFile], Field(min_length=1)]


class Instances(TypedDict):
    """Pixels in the model's input format."""

    instances: Annotated[Sequence[Any], Field(min_length=1)]
    """Pixels of each image in the shape and range of the task card, as nested lists; for digits 28 rows of 28
    pixels in one list, from 0 (background) to 1 (ink). Anything else has an error in its place."""


class Form(TypedDict):
    """Image files as form parts."""

    image: Annotated[
        Sequence[Annotated[str, Field(json_schema_extra={"format": "binary"})]], Field(min_length=1)
    ]


class ImageFailure(TypedDict):
    """An image that can't be used. The other images of the request have their results."""

    error: Problem


class Model(TypedDict):
    """The model that answered."""

    name: str
    version: VersionNumber
    labels: Labels
    """Names of the classes, in the order of `index` and `probabilities`."""


class RankedClass(TypedDict):
    """One of the most probable classes."""

    label: str
    index: ClassIndex
    """Position of `label` in the model's labels."""
    probability: Share


class Layer(TypedDict):
    """Activations of a layer for one picture."""

    name: str
    """Kind of the layer."""
    shape: Annotated[Sequence[Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=3)]
    """Height, width and number of the maps, or the number of units."""
    peak: float
    """Largest activation, white in `image`."""
    image: Png
    """Maps side by side, in rows of up to 8, a pixel apart; units as pixels, in rows of up to 16."""
    weights: NotRequired[Png]
    """Weights of the units, if the layer takes the pixels directly; maps as in `image`. Grey 128 is 0;
    lighter pixels speak for the unit, darker ones against it."""


class PredictionMore(TypedDict, total=False):
    """Members of a prediction that a query asks for."""

    top: Annotated[Sequence[RankedClass], Field(min_length=1, max_length=MAX_LABELS)]
    """The most probable classes in place of `probabilities`, if requested by `?top=`, the first one first."""
    labels: dict[str, Share]
    """Probability of each label, if requested by `?include=labels`."""
    layers: Sequence[Layer]
    """Activations of each layer, if requested by `?include=layers`; empty if the version gives none."""


class Predictions(TypedDict):
    """A result for each image, in the order of the request."""

    model: Model
    predictions: Annotated[Sequence[results.Prediction | ImageFailure], Field(min_length=1)]
    request_id: RequestId


class Readings(TypedDict):
    """A reading of each image, in the order of the request."""

    model: Model
    readings: Annotated[Sequence[results.Reading | ImageFailure], Field(min_length=1)]
    request_id: RequestId


class ModelsMore(TypedDict):
    """Members of a model that only JSON has."""

    request_id: RequestId


class Index(TypedDict):
    """The service's name, version and paths."""

    name: str
    version: str
    links: dict[str, str]


class Alive(TypedDict):
    """The process is alive."""

    status: Literal["alive"]


class Ready(TypedDict):
    """The gateway can answer predictions."""

    status: Literal["ready"]
    versions: Annotated[Sequence[VersionNumber], Field(min_length=1)]
    warnings: NotRequired[Annotated[Sequence[str], Field(min_length=1)]]
    """Sentences on versions that failed to load, on models that are left out, on stores that can't be
    reached, and on a certificate that has expired."""
