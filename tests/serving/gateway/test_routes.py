import base64
import io
import re
import time
from typing import Any

import grpc
import numpy as np
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from digit_client import images
from digit_client.images import to_png
from digit_client.tfserving.protos import PredictRequest, PredictResponse
from tests.serving.gateway.conftest import answer


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def assert_problem(response: TestResponse, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.content_type == "application/problem+json"
    document: dict[str, Any] = response.get_json(force=True)
    assert document["code"] == code
    assert document["status"] == status
    assert document["request_id"] == response.headers["X-Request-ID"]
    assert re.fullmatch(r"[A-Z].*\.", document["detail"], re.DOTALL), "a sentence"
    return document


class TestAnswers:
    def test_one_image(self, http: FlaskClient, digits: Any) -> None:
        response = http.post("/v1/predict", data=to_png(digits.one(7)), content_type="image/png")
        assert response.status_code == 200
        document = response.get_json()
        assert document["model"] == {"name": "digits", "version": 1}
        (prediction,) = document["predictions"]
        assert prediction["digit"] == 7
        assert prediction["confidence"] == prediction["probabilities"][7]
        assert sum(prediction["probabilities"]) == pytest.approx(1, abs=1e-3)
        assert document["request_id"] == response.headers["X-Request-ID"]

    @pytest.mark.parametrize("content_type", ["application/octet-stream", None])
    def test_one_image_of_no_named_type(
        self, http: FlaskClient, digits: Any, content_type: str | None
    ) -> None:
        response = http.post("/v1/predict", data=to_png(digits.one(1)), content_type=content_type)
        assert response.get_json()["predictions"][0]["digit"] == 1

    def test_every_way_of_sending_many_gives_the_same_in_order(self, http: FlaskClient, digits: Any) -> None:
        images = digits.images[:20]
        files = [to_png(image) for image in images]
        texts = [base64.b64encode(file).decode() for file in files]
        instances = (images.reshape(-1, 784) / np.float32(255)).tolist()
        responses = [
            http.post("/v1/predict", data={"image": [(io.BytesIO(file), "a.png") for file in files]}),
            http.post("/v1/predict", json={"images": texts}),
            http.post("/v1/predict", json={"images": [f"data:image/png;base64,{text}" for text in texts]}),
            http.post("/v1/predict", json={"instances": instances}),
            http.post("/v1/predict", data=npy(images), content_type="application/x-npy"),
            http.post("/v1/predict", data=npy(np.asfortranarray(images)), content_type="application/x-npy"),
        ]
        expected = [prediction["digit"] for prediction in responses[0].get_json()["predictions"]]
        assert np.mean(expected == digits.labels[:20]) > 0.8
        for response in responses:
            assert [p["digit"] for p in response.get_json()["predictions"]] == expected

    def test_it_can_include_what_the_network_saw(self, http: FlaskClient, digits: Any) -> None:
        seen = digits.one(3)
        drawing = np.full((200, 300), 255, np.uint8)
        drawing[60:144, 90:174] = 255 - np.kron(seen, np.ones((3, 3), np.uint8))
        instances = (seen.reshape(1, 784) / np.float32(255)).tolist()
        for request in (
            {"data": to_png(drawing), "content_type": "image/png"},
            {"json": {"instances": instances}},
        ):
            plain = http.post("/v1/predict", **request).get_json()["predictions"]
            (prediction,) = http.post("/v1/predict?include=image", **request).get_json()["predictions"]
            image = images.decode(base64.b64decode(prediction.pop("image")))
            assert [prediction] == plain
            assert image.shape == (28, 28)
            # A caller that sends it back gets the same answer.
            again = http.post("/v1/predict", data=to_png(image)).get_json()["predictions"]
            assert again[0]["probabilities"] == pytest.approx(prediction["probabilities"], abs=1e-6)
        assert np.array_equal(image, seen)

    def test_nothing_else_can_be_included(self, http: FlaskClient, digits: Any) -> None:
        response = http.post("/v1/predict?include=weights", data=to_png(digits.one(1)))
        assert_problem(response, 400, "invalid_selection")

    def test_a_version_can_be_asked_for(self, http: FlaskClient, digits: Any) -> None:
        image = to_png(digits.one(1))
        response = http.post("/v1/predict?version=1", data=image, content_type="image/png")
        assert response.get_json()["model"]["version"] == 1

    @pytest.mark.parametrize("query", ["version=99", "label=nonsense"])
    def test_an_unknown_model_is_not_found(self, http: FlaskClient, digits: Any, query: str) -> None:
        image = to_png(digits.one(1))
        response = http.post(f"/v1/predict?{query}", data=image, content_type="image/png")
        assert_problem(response, 404, "model_not_found")

    @pytest.mark.parametrize(
        "query",
        [
            "version=x",
            "version=-1",
            "version=",
            "version=1&label=a",
            f"version={2**63}",
            f"version={'1' * 5000}",
        ],
    )
    def test_a_senseless_model_is_refused(self, http: FlaskClient, query: str) -> None:
        response = http.post(f"/v1/predict?{query}", data=b"", content_type="image/png")
        assert_problem(response, 400, "invalid_selection")

    def test_the_models_are_listed(self, http: FlaskClient) -> None:
        document = http.get("/v1/models").get_json()
        assert document["name"] == "digits"
        assert document["versions"] == [{"version": 1, "state": "AVAILABLE"}]
        assert document["labels"] == {}


class TestRequestIds:
    def test_a_sane_one_is_kept(self, http: FlaskClient) -> None:
        response = http.get("/v1/models", headers={"X-Request-ID": "order-66.a:b_c"})
        assert response.headers["X-Request-ID"] == "order-66.a:b_c"

    @pytest.mark.parametrize("given", ["", "a b", "x" * 129, "é", "<script>"])
    def test_another_is_replaced(self, http: FlaskClient, given: str) -> None:
        response = http.get("/v1/models", headers={"X-Request-ID": given})
        assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-ID"])


class TestModelServerFaults:
    """What a caller sees when the model server fails; no real one can be made to fail like this."""

    IMAGE = npy(np.eye(28, dtype=np.uint8)[None] * 255)

    def _post(self, http: FlaskClient) -> TestResponse:
        headers = {"X-Request-ID": "id-1"}
        return http.post("/v1/predict", data=self.IMAGE, content_type="application/x-npy", headers=headers)

    @pytest.mark.parametrize(
        ("code", "status", "problem", "retry_after"),
        [
            (grpc.StatusCode.UNAVAILABLE, 503, "model_unavailable", "1"),
            (grpc.StatusCode.CANCELLED, 503, "model_unavailable", "1"),
            (grpc.StatusCode.NOT_FOUND, 503, "model_unavailable", "1"),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, 429, "overloaded", "1"),
            (grpc.StatusCode.INVALID_ARGUMENT, 502, "model_server_error", None),
            (grpc.StatusCode.INTERNAL, 502, "model_server_error", None),
        ],
    )
    def test_its_errors_are_told_without_its_words(
        self,
        faulty: Any,
        faulty_http: FlaskClient,
        code: grpc.StatusCode,
        status: int,
        problem: str,
        retry_after: str | None,
    ) -> None:
        def fail(_request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
            context.abort(code, "secret of the machine room")

        faulty.answer = fail
        response = self._post(faulty_http)
        assert_problem(response, status, problem)
        assert response.headers.get("Retry-After") == retry_after
        assert "secret" not in response.text

    @pytest.mark.parametrize(
        ("code", "calls"),
        [
            (grpc.StatusCode.UNAVAILABLE, 3),
            (grpc.StatusCode.CANCELLED, 3),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, 1),
            (grpc.StatusCode.INTERNAL, 1),
        ],
    )
    def test_what_it_drops_is_asked_again_but_not_what_it_refuses(
        self, faulty: Any, faulty_http: FlaskClient, code: grpc.StatusCode, calls: int
    ) -> None:
        faulty.answer = lambda _request, context: context.abort(code, "")
        self._post(faulty_http)
        assert faulty.calls == calls

    def test_a_large_request_is_asked_again_too(self, faulty: Any, faulty_http: FlaskClient) -> None:
        faulty.answer = lambda _request, context: context.abort(grpc.StatusCode.UNAVAILABLE, "")
        faulty_http.post("/v1/predict", json={"instances": [[0.5] * 784] * 256})
        assert faulty.calls == 3

    def test_an_outage_is_not_made_worse(self, faulty: Any, faulty_http: FlaskClient) -> None:
        faulty.answer = lambda _request, context: context.abort(grpc.StatusCode.UNAVAILABLE, "")
        for _ in range(200):
            self._post(faulty_http)
        assert faulty.calls < 260

    def test_one_that_hangs_is_given_up(self, faulty: Any, faulty_http: FlaskClient) -> None:
        def hang(_request: PredictRequest, _context: grpc.ServicerContext) -> PredictResponse:
            time.sleep(2)
            return PredictResponse()

        faulty.answer = hang
        started = time.monotonic()
        assert_problem(self._post(faulty_http), 504, "deadline_exceeded")
        assert time.monotonic() - started < 1.0

    @pytest.mark.parametrize(
        "output",
        [
            np.full((1, 10), np.nan, np.float32),
            np.full((1, 9), 1 / 9, np.float32),
            np.full((2, 10), 0.1, np.float32),
            None,
        ],
        ids=["nan", "nine", "two rows", "nothing"],
    )
    def test_a_senseless_answer_is_no_answer(
        self, faulty: Any, faulty_http: FlaskClient, output: np.ndarray | None
    ) -> None:
        given = PredictResponse() if output is None else answer(output)
        faulty.answer = lambda _request, _context: given
        assert_problem(self._post(faulty_http), 502, "model_server_error")

    def test_it_gets_the_request_id(self, faulty: Any, faulty_http: FlaskClient) -> None:
        faulty.answer = lambda _request, _context: PredictResponse()
        self._post(faulty_http)
        assert faulty.metadata["x-request-id"] == "id-1"

    def test_one_that_is_gone(self, faulty: Any, faulty_http: FlaskClient) -> None:
        faulty.close()
        assert_problem(self._post(faulty_http), 503, "model_unavailable")
        assert_problem(faulty_http.get("/v1/models"), 503, "model_unavailable")
        assert_problem(faulty_http.get("/readyz"), 503, "not_ready")
        assert faulty_http.get("/livez").status_code == 200
