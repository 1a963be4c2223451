from typing import Any

from flask.testing import FlaskClient

from digit_client.arrays import to_png


def test_every_route_is_described(http: FlaskClient) -> None:
    described = http.get("/openapi.json").get_json()
    assert described["openapi"].startswith("3.1")
    rules = {rule.rule for rule in http.application.url_map.iter_rules()}
    rules -= {"/openapi.json", "/static/<name>"}
    assert described["paths"].keys() == rules


def test_every_reference_leads_somewhere(http: FlaskClient) -> None:
    described = http.get("/openapi.json").get_json()
    for reference in set(_references(described)):
        node = described
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def test_answers_have_the_described_fields(http: FlaskClient, digits: Any) -> None:
    schemas = http.get("/openapi.json").get_json()["components"]["schemas"]
    png = to_png(digits.one(1))
    predictions = http.post("/v1/predict", data=png, content_type="image/png").get_json()
    assert predictions.keys() == schemas["Predictions"]["properties"].keys()
    assert list(predictions["predictions"][0]) == schemas["Prediction"]["required"]
    (full,) = http.post("/v1/predict?include=image", data=png).get_json()["predictions"]
    assert full.keys() == schemas["Prediction"]["properties"].keys()
    index = http.get("/", headers={"Accept": "application/json"}).get_json()
    assert index.keys() == schemas["Index"]["properties"].keys()
    assert http.get("/v1/models").get_json().keys() == schemas["Models"]["properties"].keys()
    problem = http.post("/v1/predict", data=b"x", content_type="image/png").get_json(force=True)
    assert problem.keys() == schemas["Problem"]["properties"].keys()


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        here = [node["$ref"]] if "$ref" in node else []
        return here + [reference for value in node.values() for reference in _references(value)]
    if isinstance(node, list):
        return [reference for value in node for reference in _references(value)]
    return []
