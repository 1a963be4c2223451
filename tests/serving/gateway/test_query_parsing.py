"""Query parsing: the model that a query names, and what the answer includes."""

import pytest

from digit_client.tfserving.codec import ModelRef
from digit_serving.gateway.errors import InvalidSelectionError, UnknownModelError
from digit_serving.gateway.query_parsing import ModelSelector, parse_include, parse_top
from digit_serving.gateway.settings import Settings

SELECTOR = ModelSelector(Settings(model_names=("flowers",)))


@pytest.mark.parametrize(
    ("query", "model"),
    [
        ({}, ModelRef("digits")),
        ({"label": ""}, ModelRef("digits")),
        ({"model": "flowers"}, ModelRef("flowers")),
        ({"model": "flowers", "version": "7"}, ModelRef("flowers", version=7)),
        ({"model": "digits", "label": "canary"}, ModelRef("digits", label="canary")),
    ],
)
def test_version_names_model_version_and_label(query: dict[str, str], model: ModelRef) -> None:
    assert SELECTOR.version(query) == model
    assert SELECTOR.model(query) == ModelRef(model.name)


@pytest.mark.parametrize("name", ["", "Flowers", "flowers ", "flowers,digits", "../flowers"])
def test_model_that_settings_do_not_list_is_unknown(name: str) -> None:
    with pytest.raises(UnknownModelError, match="digits, flowers"):
        SELECTOR.model({"model": name})


def test_parse_include_returns_listed_values() -> None:
    assert parse_include({}, ("image", "labels")) == set()
    assert parse_include({"include": "labels,image"}, ("image", "labels")) == {"image", "labels"}
    with pytest.raises(InvalidSelectionError, match="supported: image"):
        parse_include({"include": "labels"}, ("image",))


def test_parse_top_returns_number_of_classes() -> None:
    assert parse_top({}) is None
    assert parse_top({"top": "1000"}) == 1000
    with pytest.raises(InvalidSelectionError, match="from 1 to 1000"):
        parse_top({"top": "1001"})
