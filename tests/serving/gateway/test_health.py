from flask.testing import FlaskClient


def test_a_gateway_before_a_model_is_ready(http: FlaskClient) -> None:
    assert http.get("/livez").get_json() == {"status": "alive"}
    assert http.get("/readyz").get_json() == {"status": "ready", "versions": [1]}
