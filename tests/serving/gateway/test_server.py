"""The gateway as a process."""

import os
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from digit_client.images import to_png
from digit_client.tfserving.protos import PredictRequest, PredictResponse
from tests.processes import answers, children, free_port, running, wait_until
from tests.serving.gateway.conftest import FIVE, sevens


def slowly(request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
    time.sleep(1)
    return sevens(request, context)


def call(port: int, request: bytes, stack: ExitStack) -> socket.socket:
    """A connection of its own on which that was sent."""
    caller = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
    caller.sendall(request)
    return caller


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_when_told_and_finishes_what_it_began(
    faulty: Any, digits: Any, told: signal.Signals
) -> None:
    faulty.answer = slowly
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    headers = {"content-type": "image/png"}
    with (
        running(
            "gateway", environment={"DIGITS_PORT": str(port), "DIGITS_MODEL_SERVER": faulty.target}
        ) as process,
        ThreadPoolExecutor() as threads,
    ):
        wait_until(lambda: answers(f"{url}/livez"), process)
        image = to_png(digits.one(7))
        asked = [
            threads.submit(httpx.post, f"{url}/v1/predict", content=image, headers=headers) for _ in range(4)
        ]
        time.sleep(0.5)
        process.send_signal(told)
        assert [request.result().status_code for request in asked] == [200] * 4
        assert process.wait(5) == 0


def test_the_counts_of_all_workers_are_added_up(model_server: str, digits: Any) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    image, headers = to_png(digits.one(7)), {"content-type": "image/png"}
    environment = {"DIGITS_PORT": str(port), "DIGITS_MODEL_SERVER": model_server, "DIGITS_WORKERS": "3"}
    with running("gateway", environment=environment) as process, ThreadPoolExecutor(8) as threads:
        wait_until(lambda: answers(f"{url}/readyz"), process)
        # A connection each, for a connection stays with one worker.
        list(
            threads.map(lambda _: httpx.post(f"{url}/v1/predict", content=image, headers=headers), range(60))
        )
        for _ in range(10):
            text = httpx.get(f"{url}/metrics").text
            assert 'digits_requests_total{method="POST",route="/v1/predict",status="200"} 60.0' in text
            assert 'digits_confidence_count{version="1"} 60.0' in text
            assert len(re.findall(r"^digits_build_info{.*} 1.0$", text, re.MULTILINE)) == 1


def test_its_processes_end_with_it(faulty: Any) -> None:
    port = free_port()
    environment = {"DIGITS_PORT": str(port), "DIGITS_MODEL_SERVER": faulty.target}
    with running("gateway", environment=environment) as process:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/livez"), process)
        wait_until(lambda: len(children(process.pid)) == 2, process)
        workers = children(process.pid)
        process.kill()
        wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), seconds=5)


def test_who_waits_at_a_process_that_dies_is_answered_by_its_successor(faulty: Any) -> None:
    port = free_port()
    environment = {"DIGITS_PORT": str(port), "DIGITS_MODEL_SERVER": faulty.target}
    with running("gateway", environment=environment) as process, ThreadPoolExecutor() as threads:
        url = f"http://127.0.0.1:{port}/livez"
        wait_until(lambda: answers(url), process)
        workers = children(process.pid)
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
        asked = [threads.submit(answers, url) for _ in range(8)]
        time.sleep(0.5)
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        assert all(answered.result() for answered in asked)


def test_who_calls_last_does_not_wait_for_all_who_called_before(faulty: Any) -> None:
    faulty.answer = sevens
    port = free_port()
    environment = {"DIGITS_PORT": str(port), "DIGITS_MODEL_SERVER": faulty.target, "DIGITS_WORKERS": "1"}
    photograph = FIVE.read_bytes()
    head = b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-type: image/jpeg\r\ncontent-length: %d\r\n\r\n"
    with running("gateway", environment=environment) as process, ExitStack() as stack:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/livez"), process)
        (worker,) = children(process.pid)
        # All are there before the first is looked at.
        os.kill(worker, signal.SIGSTOP)
        before = [call(port, head % len(photograph) + photograph, stack) for _ in range(200)]
        last = call(port, b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n", stack)
        os.kill(worker, signal.SIGCONT)
        told = time.monotonic()
        assert last.recv(1024).startswith(b"HTTP/1.1 200")
        waited = time.monotonic() - told
        assert all(one.recv(1024).startswith(b"HTTP/1.1 200") for one in before)
        assert waited < 3 / 4 * (time.monotonic() - told)
