import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
from flask.testing import FlaskClient

from digit_client.arrays import to_png
from digit_client.protos import PredictRequest, PredictResponse
from digit_serving.gateway.app import create_app
from digit_serving.gateway.settings import Settings
from tests.processes import wait_until
from tests.serving.gateway.conftest import answer


def test_what_is_too_much_is_refused_at_once_and_the_rest_answered(faulty: Any, digits: Any) -> None:
    go_on = threading.Event()

    def wait(request: PredictRequest, _context: grpc.ServicerContext) -> PredictResponse:
        assert go_on.wait(10)
        count = request.inputs["images"].tensor_shape.dim[0].size
        return answer(np.eye(10, dtype=np.float32)[[7] * count])

    faulty.answer = wait
    app = create_app(Settings(model_server=faulty.target, threads=2, queue=1))
    image = to_png(digits.one(7))

    def ask(client: FlaskClient) -> Any:
        return client.post("/v1/predict", data=image, content_type="image/png")

    with ThreadPoolExecutor(3) as threads:
        asked = [threads.submit(ask, app.test_client()) for _ in range(3)]
        wait_until(lambda: faulty.calls == 1)
        time.sleep(0.2)
        refused = app.test_client().post("/v1/predict", data=image, headers={"X-Request-ID": "mine"})
        assert refused.status_code == 429
        assert refused.content_type == "application/problem+json"
        assert refused.headers["Retry-After"] == "1"
        assert refused.headers["X-Request-ID"] == "mine"
        assert refused.get_json()["code"] == "overloaded"
        assert refused.get_json()["request_id"] == "mine"
        assert app.test_client().get("/livez").status_code == 200
        assert "digits_overload_total 1.0" in app.test_client().get("/metrics").text
        go_on.set()
        assert [one.result().status_code for one in asked] == [200] * 3
    assert ask(app.test_client()).status_code == 200


def test_a_place_is_free_again_whatever_became_of_its_request(faulty: Any, digits: Any) -> None:
    def fail(_request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        context.abort(grpc.StatusCode.INTERNAL, "no")

    faulty.answer = fail
    client = create_app(Settings(model_server=faulty.target, threads=1, queue=0)).test_client()
    for _ in range(3):
        assert client.post("/v1/predict", data=to_png(digits.one(7))).status_code == 502
    for _ in range(3):
        assert client.post("/v1/predict", data=b"no image").status_code == 400
