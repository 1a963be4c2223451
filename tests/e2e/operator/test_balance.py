"""Load balancing: a gateway in front of model servers that come, die and hang."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from digit_core.images import to_png
from tests import pods
from tests.compose import Load
from tests.pods import NameServer, Pod
from tests.processes import answers, free_port, running, wait_until

pytestmark = pytest.mark.e2e


@dataclass
class Service:
    """Model servers behind a DNS name, and a gateway in front of them."""

    name_server: NameServer
    pods: list[Pod]
    url: str
    _port: int
    _models: Path
    _stack: ExitStack

    def add_pod(self) -> Pod:
        """Start a pod and add its address to the DNS name."""
        pod = pods.start(f"127.0.0.{len(self.pods) + 2}", self._port, self._models, self._stack)
        self.pods.append(pod)
        self.name_server.addresses.append(pod.address)
        return pod


@pytest.fixture
def service(models: Path) -> Iterator[Service]:
    with ExitStack() as stack:
        port, grpc_port = free_port(), free_port()
        url = f"http://127.0.0.1:{port}"
        service = Service(NameServer(grpc_port, stack), [], url, grpc_port, models, stack)
        for _ in range(2):
            service.add_pod()
        environment = {
            "DIGITS_PORT": str(port),
            "DIGITS_MODEL_SERVER": service.name_server.target,
            "DIGITS_DEFAULT_LABEL": "",
            "DIGITS_LOG_LEVEL": "warning",
        }
        gateway = stack.enter_context(running("gateway", environment=environment))
        wait_until(lambda: answers(f"{url}/readyz"), gateway)
        yield service


@pytest.fixture
def load(service: Service, digits: Any) -> Iterator[Load[int]]:
    """Continuous predictions without retries, which all have to succeed. The results are digits."""
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


def calls_by_pod(pods: list[Pod], load: Load[int], count: int) -> list[int]:
    """Return how many of the next `count` predictions each pod makes."""
    before, done = [pod.calls for pod in pods], len(load.results)
    wait_until(lambda: len(load.results) >= done + count)
    return [pod.calls - start for pod, start in zip(pods, before, strict=True)]


def assert_even(counts: list[int]) -> None:
    mean = sum(counts) / len(counts)
    assert all(abs(count - mean) < 0.2 * mean for count in counts), counts


def test_balance_pods_added_killed_and_hanging_spreads_calls_evenly(
    service: Service, load: Load[int]
) -> None:
    assert_even(calls_by_pod(service.pods, load, 200))
    new = service.add_pod()
    wait_until(lambda: new.calls > 0, seconds=60)
    dead = service.pods.pop(0)
    dead.kill()
    # The DNS record of a dead pod stays for a while, as in Kubernetes.
    assert_even(calls_by_pod(service.pods, load, 300))
    service.name_server.addresses.remove(dead.address)
    assert_even(calls_by_pod(service.pods, load, 300))
    hanging, other = service.pods
    hanging.process.send_signal(signal.SIGSTOP)
    try:
        assert calls_by_pod([other], load, 50)[0] > 0
    finally:
        hanging.process.send_signal(signal.SIGCONT)
    wait_until(lambda: min(calls_by_pod(service.pods, load, 50)) > 0)
    assert set(load.results) == {7}
