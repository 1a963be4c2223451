"""Process supervision: the gateway as processes that stop, die, restart, are flooded, and share metrics."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import cv2
import httpx
import pytest

from digit_core.images import to_png
from tests import floods
from tests.load import load
from tests.processes import answers, children, gateway_process, wait_until
from tests.serving.gateway.helpers import FIVE, IMAGE
from tests.serving.gateway.stub_model_server import StubModelServer

PNG, HEADERS = to_png(IMAGE), {"content-type": "image/png"}
FLOOD_SECONDS = float(os.environ.get("FLOOD_SECONDS", "15"))
MAX_FLOODED_MEMORY = 1.2 * 2**30


def send(port: int, request: bytes, stack: ExitStack) -> socket.socket:
    """Send the bytes on a new connection."""
    caller = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
    caller.sendall(request)
    return caller


# An interpreter that runs this file at its start has no IPv6, as with the kernel's parameter ipv6.disable=1.
WITHOUT_IPV6 = """
import errno, socket

class Socket(socket.socket):
    def __init__(self, family=-1, *arguments, **named):
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        super().__init__(family, *arguments, **named)

socket.socket = Socket
"""


def test_gateway_on_every_address_answers_ipv4_and_ipv6_callers(
    stub: StubModelServer, capfd: pytest.CaptureFixture[str]
) -> None:
    with gateway_process(stub.target, host="::") as gateway:
        for host in ("127.0.0.1", "[::1]"):
            headers = HEADERS | {"host": "digits.test"}
            answer = httpx.post(f"http://{host}:{gateway.port}/v1/predict", content=PNG, headers=headers)
            assert answer.status_code == 200
    output = capfd.readouterr()
    clients = re.findall(r'"client": ?"(.*?)"', output.out + output.err)
    assert {"127.0.0.1", "::1"} == set(clients) - {""}


def test_gateway_on_every_address_without_ipv6_answers_ipv4(stub: StubModelServer, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_IPV6)
    environment = {"PYTHONPATH": str(tmp_path)}
    with gateway_process(stub.target, environment=environment, host="::") as gateway:
        assert httpx.get(f"{gateway.url}/readyz").status_code == 200
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://[::1]:{gateway.port}/readyz")


@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.e2e)])
def test_server_stop_signal_finishes_requests_in_flight(
    stub: StubModelServer, release: threading.Event, stop_signal: signal.Signals
) -> None:
    with gateway_process(stub.target, workers=2, deadline=60) as gateway, ThreadPoolExecutor() as threads:
        # Requests for different versions share no call.
        urls = [f"{gateway.url}/v1/predict?version={number}" for number in range(4)]
        requests = [threads.submit(httpx.post, url, content=PNG, headers=HEADERS) for url in urls]
        wait_until(lambda: stub.calls == len(urls))
        gateway.process.send_signal(stop_signal)
        time.sleep(0.5)
        release.set()
        assert [request.result().status_code for request in requests] == [200] * 4
        assert gateway.process.wait(5) == 0


def test_server_stopping_answers_kept_connections_with_close(stub: StubModelServer) -> None:
    with (
        gateway_process(stub.target, workers=1) as gateway,
        ExitStack() as stack,
        httpx.Client(base_url=gateway.url) as client,
    ):
        idle = send(gateway.port, b"", stack)
        assert "connection" not in client.get("/v1/models").headers
        gateway.process.terminate()
        time.sleep(0.5)
        answer = client.get("/v1/models")
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        idle.settimeout(5)
        assert idle.recv(1) == b""
        assert gateway.process.wait(5) == 0


@pytest.mark.e2e
def test_server_metrics_sum_over_workers(stub: StubModelServer) -> None:
    with gateway_process(stub.target, workers=3, deadline=60) as gateway, ThreadPoolExecutor(8) as threads:
        # One connection per request, since a connection stays with one worker.
        answered = [threads.submit(predict, gateway.url) for _ in range(60)]
        assert [request.result().status_code for request in answered] == [200] * 60
        count = 'digits_requests_total{method="POST",route="/v1/predict",status="200"} 60.0'
        # Workers write their counters once a second.
        wait_until(lambda: count in httpx.get(f"{gateway.url}/metrics").text, gateway.process)
        for _ in range(10):
            text = httpx.get(f"{gateway.url}/metrics").text
            assert count in text
            assert 'digits_request_duration_seconds_count{route="/v1/predict"} 60.0' in text
            assert len(re.findall(r"^digits_build_info{.*} 1.0$", text, re.MULTILINE)) == 1


@pytest.mark.e2e
def test_server_killed_arbiter_workers_serve_metrics_to_their_end_and_next_start_removes_files(
    stub: StubModelServer, tmp_path: Path
) -> None:
    def ask() -> int:
        with suppress(httpx.HTTPError):
            return httpx.get(f"{gateway.url}/metrics").status_code
        return 0

    environment = {"TMPDIR": str(tmp_path)}
    with gateway_process(stub.target, environment, workers=4) as gateway, load(ask) as statuses:
        workers = children(gateway.process.pid)
        wait_until(lambda: 200 in statuses)
        gateway.process.kill()
        wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), seconds=5)
    assert set(statuses) <= {0, 200}
    left = {*tmp_path.glob("digits-metrics-*")}
    with (
        gateway_process(stub.target, environment) as first,
        gateway_process(stub.target, environment) as second,
    ):
        serving = {*tmp_path.glob("digits-metrics-*")}
        assert (len(left), len(serving), left & serving) == (1, 2, set())
        assert all(answers(f"{gateway.url}/metrics") for gateway in (first, second))
    assert list(tmp_path.glob("digits-metrics-*")) == []


@pytest.mark.e2e
def test_server_killed_workers_are_replaced_and_answer_waiting_connections(stub: StubModelServer) -> None:
    with gateway_process(stub.target, workers=2) as gateway, ThreadPoolExecutor() as threads:
        workers = children(gateway.process.pid)
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
        requests = [threads.submit(answers, f"{gateway.url}/livez") for _ in range(8)]
        time.sleep(0.5)
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        assert all(request.result() for request in requests)
        wait_until(lambda: "digits_worker_exits_total 2.0" in httpx.get(f"{gateway.url}/metrics").text)


@pytest.mark.e2e
def test_server_probe_behind_burst_of_connections_is_answered_early(stub: StubModelServer) -> None:
    photograph = FIVE.read_bytes()
    head = b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-type: image/jpeg\r\ncontent-length: %d\r\n\r\n"
    # A busy machine may take long to read hundreds of photographs.
    with gateway_process(stub.target, workers=1, deadline=60) as gateway, ExitStack() as stack:
        (worker,) = children(gateway.process.pid)
        # Stop the worker, so that all connections wait before it accepts the first.
        os.kill(worker, signal.SIGSTOP)
        burst = [send(gateway.port, head % len(photograph) + photograph, stack) for _ in range(200)]
        probe = send(gateway.port, b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n", stack)
        os.kill(worker, signal.SIGCONT)
        started = time.monotonic()
        assert probe.recv(1024).startswith(b"HTTP/1.1 200")
        probe_seconds = time.monotonic() - started
        assert all(caller.recv(1024).startswith(b"HTTP/1.1 200") for caller in burst)
        assert probe_seconds < 3 / 4 * (time.monotonic() - started)


def predict(url: str, image: bytes = PNG) -> httpx.Response:
    return httpx.post(f"{url}/v1/predict", content=image, headers=HEADERS)


@pytest.mark.e2e
def test_server_at_capacity_refuses_at_once_and_answers_the_rest(
    stub: StubModelServer, release: threading.Event
) -> None:
    with gateway_process(stub.target, queue_capacity=3) as gateway, ThreadPoolExecutor(3) as threads:
        held = [threads.submit(predict, gateway.url) for _ in range(3)]
        wait_until(lambda: stub.calls == 1)
        wait_until(lambda: predict(gateway.url).status_code == 429)
        refused = predict(gateway.url)
        assert (refused.json()["code"], refused.headers["Retry-After"]) == ("overloaded", "1")
        assert 'digits_overload_total{route="/v1/predict"} 2.0' in httpx.get(f"{gateway.url}/metrics").text
        release.set()
        assert [request.result().status_code for request in held] == [200] * 3


@pytest.mark.slow
@pytest.mark.xdist_group("timing")
def test_server_large_photographs_end_within_deadline(stub: StubModelServer) -> None:
    # Reading one takes some 30 ms.
    large = cv2.resize(cv2.imread(str(FIVE)), (4000, 3000))
    photograph = cv2.imencode(".jpg", large)[1].tobytes()
    deadline = 2.0
    limits = httpx.Limits(max_connections=200)
    with (
        gateway_process(stub.target, queue_capacity=256, deadline=deadline) as gateway,
        httpx.Client(base_url=gateway.url, headers=HEADERS, limits=limits, timeout=30) as client,
        ThreadPoolExecutor(200) as threads,
    ):
        post = partial(client.post, "/v1/predict", content=photograph)
        responses = [request.result() for request in [threads.submit(post) for _ in range(200)]]
    statuses = {response.status_code for response in responses}
    assert {200, 429} <= statuses <= {200, 429, 504}
    assert max(response.elapsed.total_seconds() for response in responses) < deadline + 1


def resident(pid: int) -> int:
    """Return the resident memory of a process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.xdist_group("timing")
@pytest.mark.parametrize("name", floods.FLOODS)
def test_flood_costs_no_worker_and_few_callers_their_answers(stub: StubModelServer, name: str) -> None:
    def ask() -> int:
        url = f"{gateway.url}/v1/predict"
        try:
            return httpx.post(url, content=PNG, headers=HEADERS, timeout=10).status_code
        except httpx.HTTPError:
            return 0

    with gateway_process(stub.target, workers=2, log_level="warning") as gateway:
        # The first worker may be ready before the second one is started.
        workers, peak = children(gateway.process.pid), 0
        command = [sys.executable, floods.__file__, name, str(gateway.port), str(FLOOD_SECONDS)]
        with subprocess.Popen(command) as flood, load(ask) as statuses:
            while flood.poll() is None:
                peak = max(peak, sum(map(resident, workers)))
                time.sleep(0.1)
        assert children(gateway.process.pid) == workers
    answered = Counter(statuses)
    sys.stdout.write(f"{name}: at most {peak / 2**20:.0f} MiB, {dict(answered)}\n")
    assert peak < MAX_FLOODED_MEMORY
    assert answered[200] > 0.9 * answered.total()
