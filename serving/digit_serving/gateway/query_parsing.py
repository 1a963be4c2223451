"""Query parsing: the model that a request asks, and the form of its answer."""

from collections.abc import Collection, Mapping
from contextlib import suppress

from digit_client.tfserving.codec import ModelRef
from digit_serving.gateway.errors import InvalidSelectionError, UnknownModelError
from digit_serving.gateway.settings import Settings

MAX_VERSION = 2**63 - 1
"""Largest version number of TensorFlow Serving."""
MAX_TOP = 1000
"""Largest value of `top`: a task has no more classes."""

Query = Mapping[str, str]


class ModelSelector:
    """Finds the model that a query names by `model`, `version` and `label`."""

    def __init__(self, settings: Settings) -> None:
        self._default = settings.model_name
        self._models = {name: ModelRef(name) for name in settings.models}

    def model(self, query: Query) -> ModelRef:
        """Return the model without a version. Raise UnknownModelError if the settings don't list it."""
        model = self._models.get(query.get("model", self._default))
        if model is None:
            raise UnknownModelError(f"Parameter `model` must be one of: {', '.join(self._models)}.")
        return model

    def version(self, query: Query) -> ModelRef:
        """Return the model, with the version or the label if the query names one.

        Raise UnknownModelError, or InvalidSelectionError for an invalid version and for a version together
        with a label.
        """
        model = self.model(query)
        version, label = query.get("version"), query.get("label")
        if version is not None and label is not None:
            raise InvalidSelectionError("Parameters `version` and `label` exclude each other.")
        if version is not None:
            number = parse_integer("version", version, 0, MAX_VERSION)
            return ModelRef(model.name, version=number)
        return ModelRef(model.name, label=label) if label else model


def parse_include(query: Query, supported: Collection[str]) -> set[str]:
    """Return what the answer shall include. Raise InvalidSelectionError for an unsupported value."""
    if "include" not in query:
        return set()
    included = set(query["include"].split(","))
    if not included.issubset(supported):
        raise InvalidSelectionError(f"Unsupported value of `include`; supported: {', '.join(supported)}.")
    return included


def parse_top(query: Query) -> int | None:
    """Return the number of classes that each prediction shall list, None for all of them."""
    return parse_integer("top", query["top"], 1, MAX_TOP) if "top" in query else None


def parse_probability(name: str, text: str) -> float:
    """Return the value of a parameter, 0..1. Raise InvalidSelectionError."""
    with suppress(ValueError):
        number = float(text)
        if 0 <= number <= 1:
            return number
    raise InvalidSelectionError(f"Parameter `{name}` must be a number from 0 to 1.")


def parse_integer(name: str, text: str, least: int, largest: int) -> int:
    """Return the value of a parameter. Raise InvalidSelectionError unless it is within the limits."""
    # Check the length first: int() raises ValueError for thousands of digits.
    if text.isascii() and text.isdigit() and len(text) <= len(str(largest)):
        number = int(text)
        if least <= number <= largest:
            return number
    raise InvalidSelectionError(f"Parameter `{name}` must be an integer from {least} to {largest}.")
