"""The JSON documents that requests bring and answers are: their types here, their schemas in the description.

What answers is checked against these types before it runs, by mypy; at run time it costs nothing.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from pydantic.json_schema import GenerateJsonSchema
from typing_extensions import TypedDict

from digit_client.tfserving.protos import ModelVersionStatus

EXAMPLE_ID = "3f2b8c1e9d4a4f0c8a57e6b1d2c3f405"


def _without(field: str) -> ConfigDict:
    def forbid(schema: dict[str, Any]) -> None:
        schema["properties"][field] = False

    return ConfigDict(json_schema_extra=forbid)


Probability = Annotated[float, Field(ge=0, le=1)]
Version = Annotated[int, Field(ge=0, description="Number of a version of the model.", examples=[1])]
RequestId = Annotated[str, Field(description="The answer's X-Request-ID.", examples=[EXAMPLE_ID])]
File = Annotated[
    str,
    Field(
        description="An image file in base64, also as a data: URL.",
        json_schema_extra={"format": "byte", "contentEncoding": "base64", "contentMediaType": "image/*"},
    ),
]
Pixels = Annotated[
    Sequence[Probability],
    Field(min_length=784, max_length=784, description="28 rows of 28 pixels, 0 the ground and 1 the ink."),
]


@with_config(_without("instances"))
class Images(TypedDict):
    """Pictures of a digit each, as files."""

    images: Annotated[list[File], Field(min_length=1)]


@with_config(_without("images"))
class Instances(TypedDict):
    """Pictures of a digit each, as the model takes them."""

    instances: Annotated[list[Pixels], Field(min_length=1)]


class Form(TypedDict):
    """Pictures of a digit each, as parts of a form."""

    image: Annotated[list[bytes], Field(min_length=1)]


class Model(TypedDict):
    """The model that answered."""

    name: Annotated[str, Field(examples=["digits"])]
    version: Version


class Prediction(TypedDict):
    """The digit on an image."""

    digit: Annotated[int, Field(ge=0, le=9, description="The most probable digit.", examples=[1])]
    confidence: Annotated[Probability, Field(description="Its probability.", examples=[0.991])]
    probabilities: Annotated[
        Sequence[Probability],
        Field(
            min_length=10,
            max_length=10,
            description="The probability of each digit, from 0 to 9.",
            examples=[[0.001, 0.991, *[0.001] * 8]],
        ),
    ]
    image: NotRequired[
        Annotated[
            str,
            Field(
                description="What the network saw, with `?include=image`: a PNG, 28×28, light ink on dark.",
                json_schema_extra={"contentEncoding": "base64", "contentMediaType": "image/png"},
            ),
        ]
    ]


class Predictions(TypedDict):
    """What each image shows, in the order sent."""

    model: Model
    predictions: Annotated[list[Prediction], Field(min_length=1)]
    request_id: RequestId


class ModelVersion(TypedDict):
    """A version of the model."""

    version: Version
    state: Annotated[
        str,
        Field(
            description="Where it is in its life.",
            examples=["AVAILABLE"],
            json_schema_extra={"enum": ModelVersionStatus.State.keys()},
        ),
    ]


class Models(TypedDict):
    """The model's versions, and which of them the labels mean."""

    name: Annotated[str, Field(examples=["digits"])]
    versions: list[ModelVersion]
    labels: Annotated[dict[str, Version], Field(examples=[{"stable": 1}])]
    request_id: RequestId


class Index(TypedDict):
    """Where everything is."""

    name: Annotated[str, Field(examples=["Digits"])]
    version: Annotated[str, Field(description="Of the gateway.", examples=["0.1.0"])]
    links: Annotated[dict[str, str], Field(examples=[{"predict": "/v1/predict"}])]


class Alive(TypedDict):
    """The process lives."""

    status: Literal["alive"]


class Ready(TypedDict):
    """The gateway can answer."""

    status: Literal["ready"]
    versions: Annotated[list[Version], Field(min_length=1)]


class Problem(TypedDict):
    """Why there is no other answer, as RFC 9457 has it."""

    type: Annotated[str, Field(examples=["about:blank"])]
    title: Annotated[str, Field(description="What the status means.")]
    status: Annotated[int, Field(ge=400, le=599)]
    code: Annotated[str, Field(description="What went wrong, for programs. It stays the same.")]
    detail: Annotated[str, Field(description="What went wrong, for people.")]
    request_id: RequestId
    index: NotRequired[Annotated[int, Field(ge=0, description="Which of several images is meant, from 0.")]]


class _Untitled(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def schemas() -> dict[str, dict[str, Any]]:
    """The JSON schema of each document, by its name, with references as OpenAPI has them."""
    documents = (Images, Instances, Form, Predictions, Models, Index, Alive, Ready, Problem)
    _, whole = TypeAdapter.json_schemas(
        [(document, "serialization", TypeAdapter(document)) for document in documents],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Untitled,
    )
    found: dict[str, dict[str, Any]] = whole["$defs"]
    return found
