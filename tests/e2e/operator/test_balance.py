"""Load balancing: a gateway in front of model servers that come, die and hang.

They share one DNS name, each with its own address, as pods of a headless Service.
"""

import re
import signal
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import httpx
import pytest
from dnslib import QTYPE, RR, A
from dnslib.server import BaseResolver, DNSLogger, DNSServer

from digit_core.images import to_png
from tests.load import load
from tests.processes import accepts, free_port, gateway_process, is_ready, running, wait_until
from tests.readme import ROOT


class Resolver(BaseResolver):  # type: ignore[misc]
    """DNS server for one name, which has the IP addresses in `addresses`."""

    def __init__(self, stack: ExitStack) -> None:
        self.addresses: list[str] = []
        server = DNSServer(self, address="127.0.0.1", port=0, logger=DNSLogger(logf=lambda *_: None))
        stack.callback(server.server.server_close)
        stack.callback(server.stop)
        server.start_thread()
        self.port = server.server.server_address[1]

    def resolve(self, request: Any, handler: Any) -> Any:
        """Answer a query (dnslib's BaseResolver)."""
        reply = request.reply()
        if request.q.qtype == QTYPE.A:
            for address in self.addresses:
                reply.add_answer(RR(request.q.qname, QTYPE.A, rdata=A(address)))
        return reply


@dataclass(frozen=True)
class Pod:
    """Model server at its own address."""

    process: Popen[bytes]
    rest: str

    @property
    def calls(self) -> int:
        """Number of requests that the model server has answered."""
        page = httpx.get(f"http://{self.rest}/monitoring/prometheus/metrics").text
        counts = re.findall(r"^:tensorflow:serving:request_count{.*} (\S+)$", page, re.MULTILINE)
        return sum(int(float(count)) for count in counts)


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
    grpc_port, rest_port, image = free_port(), free_port(), to_png(digits.one(7))
    with ExitStack() as stack:
        http = stack.enter_context(httpx.Client(headers={"Content-Type": "image/png"}, timeout=10))
        resolver = Resolver(stack)

        def add_pod(address: str) -> Pod:
            """Start a model server, which closes connections after three seconds, and name its address."""
            flags = [
                f"--host={address}",
                f"--port={grpc_port}",
                f"--rest_api_port={rest_port}",
                "--model_name=digits",
                f"--model_base_path={models}",
                f"--monitoring_config_file={ROOT / 'serving' / 'config' / 'monitoring.config'}",
                "--grpc_channel_arguments=grpc.max_connection_age_ms=3000",
            ]
            process = stack.enter_context(running("model-server", *flags))
            wait_until(lambda: accepts(rest_port, address), process)
            resolver.addresses.append(address)
            return Pod(process, f"{address}:{rest_port}")

        def predict() -> int:
            """Predict without retries, which has to succeed."""
            answer = http.post(f"{gateway.url}/v1/predict", content=image)
            assert answer.status_code == 200, answer.text
            digit: int = answer.json()["predictions"][0]["digit"]
            return digit

        dead, other = add_pod("127.0.0.2"), add_pod("127.0.0.3")
        target = f"dns://127.0.0.1:{resolver.port}/model-server.test:{grpc_port}"
        gateway = stack.enter_context(gateway_process(target, workers=2, log_level="warning"))
        wait_until(lambda: is_ready(gateway.url), gateway.process)
        answered = stack.enter_context(load(predict))
        wait_until(lambda: len(answered) > 50)
        assert_even(calls_by_pod([dead, other], answered, 200))
        hanging = add_pod("127.0.0.4")
        wait_until(lambda: hanging.calls > 0, seconds=60)
        dead.process.kill()
        # The DNS record of a dead pod stays for a while, as in Kubernetes.
        assert_even(calls_by_pod([other, hanging], answered, 200))
        resolver.addresses.remove("127.0.0.2")
        assert_even(calls_by_pod([other, hanging], answered, 200))
        hanging.process.send_signal(signal.SIGSTOP)
        try:
            assert calls_by_pod([other], answered, 50)[0] > 0
        finally:
            hanging.process.send_signal(signal.SIGCONT)
        wait_until(lambda: min(calls_by_pod([other, hanging], answered, 50)) > 0)
        assert set(answered) == {7}
