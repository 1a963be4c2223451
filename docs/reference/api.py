"""The page of the API: its OpenAPI description for people."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from digit_serving.gateway.openapi import describe
from digit_serving.gateway.settings import Settings
from docs.reference.markdown import code, joined, table

_Node = dict[str, Any]

_PARAMETERS = ("parameter", "in", "", "")


def page() -> str:
    """Every route with what it takes and answers, and the documents they are made of."""
    described = describe(Settings.model_construct())
    parts = described["components"]
    routes = [
        _route(f"{method.upper()} {path}", operation)
        for path, item in described["paths"].items()
        for method, operation in item.items()
    ]
    return joined(
        [
            "# The API",
            described["info"]["description"],
            "Every request may have",
            table(_PARAMETERS, map(_parameter, parts["parameters"].values())),
            *routes,
            "## Documents",
            *(_document(name, schema) for name, schema in sorted(parts["schemas"].items())),
        ]
    )


def _route(name: str, operation: _Node) -> str:
    own = [parameter for parameter in operation["parameters"] if "$ref" not in parameter]
    content = operation.get("requestBody", {}).get("content", {})
    examples = [example for media in content.values() for example in media.get("examples", {}).values()]
    return joined(
        [
            f"## {name}",
            operation["summary"],
            operation.get("description", ""),
            table(_PARAMETERS, map(_parameter, own)),
            table(("body", "", ""), ((f"`{kind}`", *_told(one["schema"])) for kind, one in content.items())),
            code(_shortest(examples), "json") if examples else "",
            table(("status", "answer", "headers", ""), _answers(operation["responses"])),
        ]
    )


def _parameter(parameter: _Node) -> tuple[str, ...]:
    return f"`{parameter['name']}`", parameter["in"], *_told(parameter["schema"] | parameter)


def _answers(responses: _Node) -> Iterator[tuple[str, ...]]:
    for status, response in responses.items():
        kinds = " or ".join(
            _type(media["schema"]) if "json" in name else f"`{name}`"
            for name, media in response["content"].items()
        )
        text = response["description"].replace("- ", "").replace("\n", "<br>")
        yield status, kinds, ", ".join(response["headers"]), text


def _document(name: str, schema: _Node) -> str:
    rows = (
        (f"`{field}`" + ("" if field in schema["required"] else ", may be absent"), *_told(described))
        for field, described in schema["properties"].items()
        if described
    )
    return joined([f"### {name}", schema["description"], table(("field", "", ""), rows)])


def _told(schema: _Node) -> tuple[str, str]:
    return _type(schema), schema.get("description") or schema.get("items", {}).get("description", "")


def _type(schema: _Node) -> str:
    """A schema in words."""
    if "$ref" in schema:
        return f"[{_name(schema)}](#{_name(schema).lower()})"
    if "oneOf" in schema:
        return " or ".join(map(_type, schema["oneOf"]))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema["type"] == "array":
        return f"{_range(schema, 'minItems', 'maxItems') or '0…'} × {_type(schema['items'])}"
    if schema["type"] == "object" and "additionalProperties" in schema:
        return f"{_type(schema['additionalProperties'])} by name"
    kind = schema.get("contentEncoding") or schema.get("format") or schema["type"]
    return f"{kind} {_range(schema, 'minimum', 'maximum')}".strip()


def _range(schema: _Node, low: str, high: str) -> str:
    if schema.get(low) == schema.get(high) is not None:
        return str(schema[low])
    ends = [str(schema[end]) if end in schema else "" for end in (low, high)]
    return "…".join(ends) if any(ends) else ""


def _name(reference: _Node) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def _shortest(examples: Iterable[_Node]) -> str:
    return min((json.dumps(example["value"]) for example in examples), key=len)
