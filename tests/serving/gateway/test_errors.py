from flask.testing import FlaskClient

from digit_serving.gateway.settings import Settings
from tests import greenlet_loop


def test_every_error_has_one_shape(http: FlaskClient) -> None:
    for response, status, code in (
        (http.get("/nowhere"), 404, "not_found"),
        (http.get("/v1//models"), 404, "not_found"),
        (http.get("/v1/predict"), 405, "method_not_allowed"),
        (http.post("/v1/predict", data=b"x", content_type="text/plain"), 415, "unsupported_media_type"),
        (http.post("/v1/predict", data=b"x", content_type="image/png"), 400, "not_an_image"),
        (http.post("/v1/predict", data=bytes(9_000_000), content_type="image/png"), 413, "body_too_large"),
    ):
        assert response.content_type == "application/problem+json"
        document = response.get_json(force=True)
        assert (response.status_code, document["code"]) == (status, code)
        assert document.keys() >= {"type", "title", "status", "code", "detail", "request_id"}


def test_an_allowed_method_is_told(http: FlaskClient) -> None:
    assert "POST" in http.get("/v1/predict").headers["Allow"]


def test_an_unforeseen_error_keeps_its_secrets() -> None:
    app = greenlet_loop.app(Settings())

    @app.get("/broken")
    def broken() -> str:
        raise RuntimeError("secret of the machine room")

    response = app.test_client().get("/broken")
    assert response.status_code == 500
    assert response.get_json(force=True)["code"] == "internal_error"
    assert "secret" not in response.text
