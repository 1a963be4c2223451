"""Query parameters: the model, version and label that a request selects."""

import pytest
from werkzeug.datastructures import MultiDict

from digit_core.tfserving.codec import ModelRef
from digit_serving.gateway.errors import InvalidSelectionError, UnknownModelError
from digit_serving.gateway.parsing import ModelQuery, ModelSelector, VersionQuery, parse_query
from digit_serving.gateway.settings import Settings

SELECTOR = ModelSelector(Settings(model_names=("flowers",)))


@pytest.mark.parametrize(
    ("query", "model"),
    [
        ({}, ModelRef("digits")),
        ({"label": ""}, ModelRef("digits")),
        ({"model": "flowers"}, ModelRef("flowers")),
        ({"model": "flowers", "version": "7"}, ModelRef("flowers", version=7)),
        ({"model": "digits", "label": "canary"}, ModelRef("digits", version_label="canary")),
    ],
)
def test_version_names_model_version_and_label(query: dict[str, str], model: ModelRef) -> None:
    parsed = parse_query(VersionQuery, MultiDict(query))
    assert SELECTOR.version(parsed) == model
    assert SELECTOR.model(parsed) == ModelRef(model.name)


@pytest.mark.parametrize("name", ["", "Flowers", "flowers ", "flowers,digits", "../flowers"])
def test_model_that_settings_do_not_list_is_unknown(name: str) -> None:
    with pytest.raises(UnknownModelError, match="digits, flowers"):
        SELECTOR.model(ModelQuery(model=name))


def test_any_name_of_a_model_is_taken_for_an_asterisk() -> None:
    selector = ModelSelector(Settings(model_names=("flowers", "*")))
    assert selector.model(ModelQuery(model="shapes")) == ModelRef("shapes")
    with pytest.raises(UnknownModelError, match="must be one of: digits, flowers"):
        selector.model(ModelQuery(model="../flowers"))


def test_parse_query_unknown_parameter_is_named() -> None:
    assert parse_query(ModelQuery, MultiDict({"model": "digits"})).model == "digits"
    with pytest.raises(InvalidSelectionError, match="Unknown parameter `modle`; known: model, version"):
        parse_query(VersionQuery, MultiDict({"modle": "digits"}))
