"""A gateway before several model servers, some of which come and go."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from digit_client.images import to_png
from tests import pods
from tests.compose import Load
from tests.pods import Name, Pod
from tests.processes import answers, free_port, running, wait_until


@dataclass
class Service:
    """Two model servers behind a name, and a gateway's URL; `stack` ends them."""

    name: Name
    pods: list[Pod]
    url: str
    _port: int
    _models: Path
    _stack: ExitStack

    def add_pod(self) -> Pod:
        """Start another one and let the name stand for it as well."""
        pod = pods.start(f"127.0.0.{len(self.pods) + 2}", self._port, self._models, self._stack)
        self.pods.append(pod)
        self.name.addresses.append(pod.address)
        return pod


@pytest.fixture
def service(models: Path) -> Iterator[Service]:
    with ExitStack() as stack:
        port, grpc_port = free_port(), free_port()
        url = f"http://127.0.0.1:{port}"
        service = Service(Name(grpc_port, stack), [], url, grpc_port, models, stack)
        for _ in range(2):
            service.add_pod()
        environment = {
            "DIGITS_PORT": str(port),
            "DIGITS_MODEL_SERVER": service.name.target,
            "DIGITS_LOG_LEVEL": "warning",
        }
        gateway = stack.enter_context(running("gateway", environment=environment))
        wait_until(lambda: answers(f"{url}/readyz"), gateway)
        yield service


@pytest.fixture
def load(service: Service, digits: Any) -> Iterator[Load[int]]:
    """Predictions, one try each, that must all succeed; its results are the digits read."""
    image = to_png(digits.one(7))
    with httpx.Client(base_url=service.url, headers={"Content-Type": "image/png"}, timeout=10) as http:

        def predict() -> int:
            answer = http.post("/v1/predict", content=image)
            assert answer.status_code == 200, answer.text
            digit: int = answer.json()["predictions"][0]["digit"]
            return digit

        with Load(predict) as load:
            wait_until(lambda: len(load.results) > 50)
            yield load


def calls(pods: list[Pod], load: Load[int], count: int) -> list[int]:
    """How the next `count` predictions are spread over the pods."""
    before, done = [pod.calls for pod in pods], len(load.results)
    wait_until(lambda: len(load.results) >= done + count)
    return [pod.calls - start for pod, start in zip(pods, before, strict=True)]


def assert_even(spread: list[int]) -> None:
    even = sum(spread) / len(spread)
    assert all(abs(count - even) < 0.2 * even for count in spread), spread


def test_calls_are_spread_while_pods_come_and_die(service: Service, load: Load[int]) -> None:
    assert_even(calls(service.pods, load, 200))
    new = service.add_pod()
    wait_until(lambda: new.calls > 0, seconds=60)
    dead = service.pods.pop(0)
    dead.kill()
    # The name goes on standing for it for a while, as in Kubernetes.
    assert_even(calls(service.pods, load, 300))
    service.name.addresses.remove(dead.address)
    assert_even(calls(service.pods, load, 300))
    assert set(load.results) == {7}


def test_a_pod_that_hangs_is_left_out(service: Service, load: Load[int]) -> None:
    hanging, other = service.pods
    hanging.process.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: calls([other], load, 50)[0] >= 50)
    finally:
        hanging.process.send_signal(signal.SIGCONT)
    wait_until(lambda: min(calls(service.pods, load, 50)) > 0)
    assert set(load.results) == {7}
