"""Load balancing: a gateway in front of model servers that come, die and hang."""

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

pytestmark = pytest.mark.e2e


@dataclass
class Service:
    """Two model servers behind a DNS name and a gateway; closing `stack` stops them."""

    name: Name
    pods: list[Pod]
    url: str
    _port: int
    _models: Path
    _stack: ExitStack

    def add_pod(self) -> Pod:
        """Start a pod and add its address to the DNS name."""
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
    """Continuous predictions without retries, each of which has to succeed. Results: digits."""
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
    """Return each pod's share of the next `count` predictions."""
    before, done = [pod.calls for pod in pods], len(load.results)
    wait_until(lambda: len(load.results) >= done + count)
    return [pod.calls - start for pod, start in zip(pods, before, strict=True)]


def assert_even(spread: list[int]) -> None:
    even = sum(spread) / len(spread)
    assert all(abs(count - even) < 0.2 * even for count in spread), spread


def test_balance_pods_added_and_killed_spreads_calls_evenly(service: Service, load: Load[int]) -> None:
    assert_even(calls(service.pods, load, 200))
    new = service.add_pod()
    wait_until(lambda: new.calls > 0, seconds=60)
    dead = service.pods.pop(0)
    dead.kill()
    # The DNS record of a dead pod stays for a while, as in Kubernetes.
    assert_even(calls(service.pods, load, 300))
    service.name.addresses.remove(dead.address)
    assert_even(calls(service.pods, load, 300))
    assert set(load.results) == {7}


def test_balance_hanging_pod_gets_no_calls(service: Service, load: Load[int]) -> None:
    hanging, other = service.pods
    hanging.process.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: calls([other], load, 50)[0] >= 50)
    finally:
        hanging.process.send_signal(signal.SIGCONT)
    wait_until(lambda: min(calls(service.pods, load, 50)) > 0)
    assert set(load.results) == {7}
