"""Overload of a gateway process: refusals at capacity, slow models, and pictures that are slow to read."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import cv2
import grpc
import httpx
import pytest

from digit_core.images import to_png
from digit_core.tfserving.protos import PredictRequest, PredictResponse
from tests.processes import wait_until
from tests.serving.gateway.conftest import FIVE, IMAGE, StubModelServer, gateway_process, predict_sevens

PNG = to_png(IMAGE)


def predict(url: str, image: bytes, *, version: int = 1, request_id: str = "") -> httpx.Response:
    headers = {"Content-Type": "image/png", "X-Request-ID": request_id}
    return httpx.post(f"{url}/v1/predict", params={"version": version}, content=image, headers=headers)


def hold_version_1(stub: StubModelServer) -> threading.Event:
    """Make the stub hold calls of version 1 until the returned event is set."""
    release = threading.Event()

    def wait(request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        assert request.model_spec.version.value != 1 or release.wait(10)
        return predict_sevens(request, context)

    stub.answer = wait
    return release


def test_gateway_at_capacity_refuses_at_once_and_answers_the_rest(stub: StubModelServer) -> None:
    release = hold_version_1(stub)
    with gateway_process(stub.target, queue_capacity=3) as gateway, ThreadPoolExecutor(3) as threads:
        held = [threads.submit(predict, gateway.url, PNG) for _ in range(3)]
        wait_until(lambda: stub.calls == 1)
        wait_until(lambda: predict(gateway.url, PNG).status_code == 429)
        refused = predict(gateway.url, PNG, request_id="mine")
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        assert (refused.json()["code"], refused.json()["request_id"]) == ("overloaded", "mine")
        assert httpx.get(f"{gateway.url}/livez").status_code == 200
        assert 'digits_overload_total{route="/v1/predict"} 2.0' in httpx.get(f"{gateway.url}/metrics").text
        release.set()
        assert [request.result().status_code for request in held] == [200] * 3
        assert predict(gateway.url, PNG).status_code == 200


@pytest.mark.slow
@pytest.mark.xdist_group("timing")
def test_gateway_large_photographs_end_within_deadline(stub: StubModelServer) -> None:
    # Reading one takes some 30 ms.
    large = cv2.resize(cv2.imread(str(FIVE)), (4000, 3000))
    photograph = cv2.imencode(".jpg", large)[1].tobytes()
    deadline = 2.0
    with (
        gateway_process(stub.target, queue_capacity=256, deadline=deadline) as gateway,
        ThreadPoolExecutor(200) as threads,
    ):
        responses = [*threads.map(partial(predict, gateway.url), [photograph] * 200)]
    statuses = {response.status_code for response in responses}
    assert {200, 429} <= statuses <= {200, 429, 504}
    assert max(response.elapsed.total_seconds() for response in responses) < deadline + 1
