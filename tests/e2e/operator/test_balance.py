"""Load balancing: a gateway in front of model servers that come, die and hang."""

import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from digit_core.images import to_png
from tests import pods
from tests.load import load
from tests.pods import NameServer, Pod
from tests.processes import answers, free_port, running, wait_until


def calls_by_pod(pods: list[Pod], digits: list[int], count: int) -> list[int]:
    """Return how many of the next `count` predictions each pod makes."""
    before, done = [pod.calls for pod in pods], len(digits)
    wait_until(lambda: len(digits) >= done + count)
    return [pod.calls - start for pod, start in zip(pods, before, strict=True)]


def assert_even(counts: list[int]) -> None:
    mean = sum(counts) / len(counts)
    assert all(abs(count - mean) < 0.2 * mean for count in counts), counts


@pytest.mark.e2e
def test_balance_pods_added_killed_and_hanging_spreads_calls_evenly(models: Path, digits: Any) -> None:
    port, grpc_port, image = free_port(), free_port(), to_png(digits.one(7))
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        http = stack.enter_context(httpx.Client(headers={"Content-Type": "image/png"}, timeout=10))
        name_server = NameServer(grpc_port, stack)

        def add_pod(number: int) -> Pod:
            pod = pods.start(f"127.0.0.{number}", grpc_port, models, stack)
            name_server.addresses.append(pod.address)
            return pod

        def predict() -> int:
            """Predict without retries, which has to succeed."""
            answer = http.post(f"{url}/v1/predict", content=image)
            assert answer.status_code == 200, answer.text
            digit: int = answer.json()["predictions"][0]["digit"]
            return digit

        dead, other = add_pod(2), add_pod(3)
        environment = {
            "DIGITS_PORT": str(port),
            "DIGITS_MODEL_SERVER": name_server.target,
            "DIGITS_DEFAULT_LABEL": "",
            "DIGITS_LOG_LEVEL": "warning",
        }
        gateway = stack.enter_context(running("gateway", environment=environment))
        wait_until(lambda: answers(f"{url}/readyz"), gateway)
        answered = stack.enter_context(load(predict))
        wait_until(lambda: len(answered) > 50)
        assert_even(calls_by_pod([dead, other], answered, 200))
        hanging = add_pod(4)
        wait_until(lambda: hanging.calls > 0, seconds=60)
        dead.process.kill()
        # The DNS record of a dead pod stays for a while, as in Kubernetes.
        assert_even(calls_by_pod([other, hanging], answered, 300))
        name_server.addresses.remove(dead.address)
        assert_even(calls_by_pod([other, hanging], answered, 300))
        hanging.process.send_signal(signal.SIGSTOP)
        try:
            assert calls_by_pod([other], answered, 50)[0] > 0
        finally:
            hanging.process.send_signal(signal.SIGCONT)
        wait_until(lambda: min(calls_by_pod([other, hanging], answered, 50)) > 0)
        assert set(answered) == {7}
