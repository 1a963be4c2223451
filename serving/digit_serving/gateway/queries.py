"""Query parameters: the model and version that a request selects, and the form of its answer."""

from functools import cache
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from werkzeug.datastructures import MultiDict

from digit_core.artifact.task_card import NAME
from digit_core.results import MIN_IS_DIGIT
from digit_core.tfserving.codec import ModelRef
from digit_serving.gateway.errors import MAX_QUOTED, InvalidSelectionError, UnknownModelError
from digit_serving.gateway.schemas import Share
from digit_serving.gateway.settings import Settings


def _require_digits(text: str) -> str:
    """Refuse other notations of integers, such as "+1" and "1_0", which Pydantic takes."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError("Input should be a valid integer")
    return text


def _split_at_commas(text: str) -> list[str]:
    return text.split(",")


_Digits = BeforeValidator(_require_digits)
_Version = Annotated[int, Field(ge=0, le=2**63 - 1, json_schema_extra={"format": "int64"}), _Digits]


class Query(BaseModel):
    """Query parameters of an operation, as the OpenAPI document describes them."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class ModelQuery(Query):
    """Query that chooses a model."""

    model: str | None = None
    """Name of the model."""


class VersionQuery(ModelQuery):
    """Query that chooses a version of a model."""

    version: _Version | None = None
    """Version of the model."""
    label: str | None = None
    """Label of a version of the model; excludes `version`."""
    min_is_digit: Share = MIN_IS_DIGIT
    """Least `is_digit` of a digit: models of digits refuse what has less. A higher value refuses more of what
    is no digit, and more digits."""


class PredictQuery(VersionQuery):
    """Query of /v1/predict."""

    include: Annotated[
        tuple[Literal["image", "labels", "layers"], ...],
        Field(min_length=1),
        BeforeValidator(_split_at_commas),
    ] = ()
    """Include the model's input image, the probability of each label, or the activations of each layer."""
    top: Annotated[int, Field(ge=1, le=1000), _Digits] | None = None
    """Number of the most probable classes listed in `top`, instead of `probabilities`."""


class ReadQuery(VersionQuery):
    """Query of /v1/read."""

    include: Literal["image"] | None = None
    """Include the model's input of each digit."""


class UnlabelledQuery(ModelQuery):
    """Query of answers that wait for a label."""

    limit: Annotated[int, Field(ge=1, le=100), _Digits] = 20
    """Largest number of answers."""


_Query = TypeVar("_Query", bound=Query)


def parse_query(kind: type[_Query], parameters: MultiDict[str, str]) -> _Query:
    """Return the query. Raise InvalidSelectionError, also for a name that is misspelt or comes twice."""
    if not parameters:
        return _default(kind)  # type: ignore[no-any-return]
    for name, values in parameters.lists():
        if len(values) > 1:
            raise InvalidSelectionError(f"Parameter `{name[:MAX_QUOTED]}` comes {len(values)} times.")
    try:
        return kind.model_validate(parameters.to_dict())
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])[:MAX_QUOTED]
        if first["type"] == "extra_forbidden":
            known = f"; known: {', '.join(kind.model_fields)}" if kind.model_fields else ""
            raise InvalidSelectionError(f"Unknown parameter `{name}`{known}.") from error
        reason = first["msg"].removeprefix("Value error, ")
        raise InvalidSelectionError(f"Parameter `{name}`: {reason}.") from error


@cache
def _default(kind: type[Any]) -> Any:
    return kind()


class ModelSelector:
    """Finds the model that a query names by `model`, `version` and `label`."""

    def __init__(self, settings: Settings) -> None:
        self._default = settings.model_name
        self._models = {name: ModelRef(name) for name in settings.models}
        self._takes_any = "*" in settings.model_names
        self._reader = settings.reader

    def model(self, query: ModelQuery) -> ModelRef:
        """Return the model without a version. Raise UnknownModelError if the settings don't permit it."""
        name = self._default if query.model is None else query.model
        if listed := self._models.get(name):
            return listed
        if not (self._takes_any and NAME.fullmatch(name)):
            raise UnknownModelError(f"Parameter `model` must be one of: {', '.join(self._models)}.")
        return ModelRef(name)

    def version(self, query: VersionQuery) -> ModelRef:
        """Return the model, with the version or the label if the query names one.

        Raise UnknownModelError, also for the reader, or InvalidSelectionError for a version together with a
        label.
        """
        model = self.model(query)
        if model.name == self._reader:
            raise UnknownModelError(f"The model {model.name} finds digits for others; ask another model.")
        if query.version is not None and query.label is not None:
            raise InvalidSelectionError("Parameters `version` and `label` exclude each other.")
        if query.version is None and not query.label:
            return model
        return ModelRef(model.name, query.version, query.label or None)
