import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import cv2
import grpc
import httpx

from digit_client.images import to_png
from digit_client.tfserving.protos import PredictRequest, PredictResponse
from tests.processes import answers, free_port, running, wait_until
from tests.serving.gateway.conftest import FIVE, sevens


@contextmanager
def gateway(model_server: str, queue: int, deadline: float = 5.0) -> Iterator[str]:
    """The address of one with one process, which takes on so many requests at once."""
    port = free_port()
    environment = {
        "DIGITS_PORT": str(port),
        "DIGITS_MODEL_SERVER": model_server,
        "DIGITS_WORKERS": "1",
        "DIGITS_QUEUE_CAPACITY": str(queue),
        "DIGITS_DEADLINE": str(deadline),
    }
    url = f"http://127.0.0.1:{port}"
    with running("gateway", environment=environment) as process:
        wait_until(lambda: answers(f"{url}/livez"), process)
        yield url


def ask(url: str, image: bytes, *, version: int = 1, request_id: str = "") -> httpx.Response:
    headers = {"Content-Type": "image/png", "X-Request-ID": request_id}
    return httpx.post(f"{url}/v1/predict", params={"version": version}, content=image, headers=headers)


def held_up(faulty: Any) -> threading.Event:
    """What the answers of its version 1, sevens as the others', wait for."""
    go_on = threading.Event()

    def wait(request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        assert request.model_spec.version.value != 1 or go_on.wait(10)
        return sevens(request, context)

    faulty.answer = wait
    return go_on


def test_what_is_too_much_is_refused_at_once_and_the_rest_answered(faulty: Any, digits: Any) -> None:
    go_on = held_up(faulty)
    image = to_png(digits.one(7))
    with gateway(faulty.target, queue=3) as url, ThreadPoolExecutor(3) as threads:
        asked = [threads.submit(ask, url, image) for _ in range(3)]
        wait_until(lambda: faulty.calls == 1)
        wait_until(lambda: ask(url, image).status_code == 429)
        refused = ask(url, image, request_id="mine")
        assert refused.status_code == 429
        assert refused.headers["Content-Type"] == "application/problem+json"
        assert refused.headers["Retry-After"] == "1"
        assert refused.headers["X-Request-ID"] == "mine"
        assert refused.json()["code"] == "overloaded"
        assert refused.json()["request_id"] == "mine"
        assert httpx.get(f"{url}/livez").status_code == 200
        assert "digits_overload_total 2.0" in httpx.get(f"{url}/metrics").text
        go_on.set()
        assert [one.result().status_code for one in asked] == [200] * 3
        assert ask(url, image).status_code == 200


def test_many_who_wait_for_a_version_that_hangs_hold_up_nobody_else(faulty: Any, digits: Any) -> None:
    go_on = held_up(faulty)
    image = to_png(digits.one(7))
    with gateway(faulty.target, queue=80) as url, ThreadPoolExecutor(79) as threads:
        asked = [threads.submit(ask, url, image) for _ in range(79)]
        wait_until(lambda: faulty.calls == 1)
        for _ in range(3):
            other = ask(url, image, version=2)
            assert other.status_code == 200
            assert other.elapsed.total_seconds() < 1
        asked.append(threads.submit(ask, url, image))
        go_on.set()
        assert [one.result().status_code for one in asked] == [200] * 80


def test_those_who_wait_for_their_turn_are_taken_on_as_well(faulty: Any, digits: Any) -> None:
    go_on = held_up(faulty)
    image = to_png(digits.one(7))
    with gateway(faulty.target, queue=70) as url, ThreadPoolExecutor(100) as threads:
        asked = [threads.submit(ask, url, image) for _ in range(100)]
        wait_until(lambda: sum(one.done() for one in asked) == 30)
        go_on.set()
        assert sorted(one.result().status_code for one in asked) == [200] * 70 + [429] * 30


def test_a_place_is_free_again_whatever_became_of_its_request(faulty: Any, digits: Any) -> None:
    def fail(_request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        context.abort(grpc.StatusCode.INTERNAL, "no")

    faulty.answer = fail
    with gateway(faulty.target, queue=1) as url:
        for _ in range(3):
            assert ask(url, to_png(digits.one(7))).status_code == 502
        for _ in range(3):
            assert ask(url, b"no image").status_code == 400


def test_nobody_waits_longer_than_the_deadline_for_pictures_that_take_long(faulty: Any) -> None:
    faulty.answer = sevens
    # Thirty milliseconds each.
    large = cv2.resize(cv2.imread(str(FIVE)), (4000, 3000))
    photograph = cv2.imencode(".jpg", large)[1].tobytes()
    deadline = 2.0
    with gateway(faulty.target, queue=256, deadline=deadline) as url, ThreadPoolExecutor(200) as threads:
        answered = [*threads.map(partial(ask, url), [photograph] * 200)]
    assert {answer.status_code for answer in answered} == {200, 429}
    assert max(answer.elapsed.total_seconds() for answer in answered) < deadline + 1
