"""Check of the gateway's responses against its OpenAPI document."""

from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
from werkzeug.test import TestResponse

from digit_serving.gateway.openapi import describe
from digit_serving.gateway.settings import Settings

# Any file: keys are not read.
DOCUMENT = describe(Settings(feedback="sqlite:///feedback.db", api_keys=Path(__file__)))


def check(response: TestResponse) -> None:
    """Fail if status, headers or JSON of a response differ from the document.

    Paths that are not documented, or not served with the gateway's settings, may answer anything.
    """
    path, method = response.request.path, response.request.method.lower()
    operation = DOCUMENT["paths"].get(path, {}).get(method)
    is_problem = response.content_type == "application/problem+json"
    if not operation or (is_problem and response.get_json(force=True)["code"] == "not_found"):
        return
    documented = operation["responses"][str(response.status_code)]
    media_type = response.content_type.partition(";")[0]
    if "json" in media_type:
        _validator(path, method, response.status_code, media_type).validate(response.get_json(force=True))
    assert media_type in documented["content"]
    for name in documented["headers"]:
        schema = DOCUMENT["components"]["headers"][name]["schema"]
        value = response.headers[name]
        jsonschema_rs.validate(schema, int(value) if schema["type"] == "integer" else value)


@cache
def _validator(path: str, method: str, status: int, media_type: str) -> Any:
    content = DOCUMENT["paths"][path][method]["responses"][str(status)]["content"]
    return jsonschema_rs.validator_for(
        {**content[media_type]["schema"], "components": DOCUMENT["components"]}
    )
