"""Fault injection: a gateway and a model server under continuous load."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import httpx
import pytest

from digit_core.images import to_png
from digit_serving.stack import MODEL_SERVER_FLAGS
from tests.load import load
from tests.processes import MODEL_SERVER, answers, free_port, gateway_process, wait_until

DEADLINE = 5.0
"""Default request deadline of the gateway, in seconds."""

HEARTBEAT = 12
"""Seconds that a worker of the gateway may live without a heartbeat, in place of 30."""

GATEWAY = [
    sys.executable,
    "-c",
    "from digit_client.__main__ import main; from digit_serving.gateway import server; "
    f"server._HEARTBEAT_TIMEOUT_SECONDS = {HEARTBEAT}; main()",
]
"""Command line of `digits` with this heartbeat."""

RECOVERY = 2.0
"""Maximum recovery time after the end of a fault, in seconds."""

CALLERS_TIMEOUT = DEADLINE + 2
"""Seconds after which callers give up."""

GONE = 0
"""Status of a request whose connection broke or was refused."""


@dataclass(frozen=True)
class Outcome:
    """Result of one request: `started` on the monotonic clock, duration in `seconds`."""

    started: float
    seconds: float
    status: int
    is_correct: bool
    retry_after: str | None


@dataclass
class Callers:
    """Outcomes of the requests of clients that each send one after another."""

    outcomes: list[Outcome]
    max_seconds: float = DEADLINE + 1
    """Longest time that a request may take."""

    def statuses(self, since: float = 0.0) -> set[int]:
        """Return the statuses of requests that began after `since`."""
        return {outcome.status for outcome in self.outcomes if outcome.started >= since}

    def check(self) -> None:
        """Assert that no answer is wrong or late, and that each refusal has Retry-After."""
        assert self.outcomes
        assert all(outcome.is_correct for outcome in self.outcomes if outcome.status == 200)
        assert max(outcome.seconds for outcome in self.outcomes) < self.max_seconds
        assert all(outcome.retry_after for outcome in self.outcomes if outcome.status in {429, 503, 504})


@dataclass
class Service:
    """Gateway and its model server, which is None until its start."""

    models: Path
    digits: Any
    gateway: subprocess.Popen[bytes]
    url: str
    grpc_port: int
    log: Path
    model_server: subprocess.Popen[bytes] | None = None

    def start_model_server(self, wrapper: Sequence[str] = (), **options: Any) -> None:
        """Start the model server, through the command `wrapper` if given; don't wait until it is ready."""
        models = ("--model_name=digits", f"--model_base_path={self.models}")
        flags = (f"--port={self.grpc_port}", *MODEL_SERVER_FLAGS, *models)
        with self.log.open("ab") as log:
            self.model_server = subprocess.Popen([*wrapper, *MODEL_SERVER, *flags], stderr=log, **options)

    def kill_model_server(self) -> None:
        """Kill the model server, as the kernel's out-of-memory killer does."""
        assert self.model_server is not None
        self.model_server.kill()
        self.model_server.wait()

    def signal_model_server(self, number: int) -> None:
        """Send the model server a signal."""
        assert self.model_server is not None
        self.model_server.send_signal(number)

    @property
    def is_ready(self) -> bool:
        """True if /readyz answers with 200."""
        return answers(f"{self.url}/readyz")

    def wait_until_ready(self, seconds: float = 60.0) -> None:
        """Wait until all gateway workers are ready, at most `seconds`."""
        # Eight connections, so that the kernel gives some to each worker.
        wait_until(lambda: all(self.is_ready for _ in range(8)), self.gateway, seconds)

    def ask(self, image: bytes | None = None, client: Any = httpx) -> httpx.Response:
        """Send one image, without retries; return the response."""
        image = image or to_png(self.digits.one(7))
        answer: httpx.Response = client.post(
            f"{self.url}/v1/predict",
            content=image,
            headers={"content-type": "image/png"},
            timeout=CALLERS_TIMEOUT,
        )
        return answer

    def version(self) -> int:
        """Return the model version that answers."""
        number: int = self.ask().json()["model"]["version"]
        return number

    @contextmanager
    def callers(self, count: int = 8) -> Iterator[Callers]:
        """Send requests from `count` clients, connected before the block, until half a second after it."""
        images = [to_png(self.digits.one(digit)) for digit in range(10)]
        expected = [self.ask(image).json()["predictions"][0]["digit"] for image in images]
        indexes, clients = cycle(range(len(images))), SimpleQueue[httpx.Client]()

        def call() -> Outcome:
            index, client, started = next(indexes), clients.get(), time.monotonic()
            try:
                answer = self.ask(images[index], client)
            except httpx.HTTPError:
                return Outcome(started, time.monotonic() - started, GONE, False, None)
            finally:
                clients.put(client)
            seconds, is_answered = time.monotonic() - started, answer.status_code == 200
            is_correct = is_answered and answer.json()["predictions"][0]["digit"] == expected[index]
            retry_after = answer.headers.get("retry-after")
            return Outcome(started, seconds, answer.status_code, is_correct, retry_after)

        with ExitStack() as stack:
            for _ in range(count):
                clients.put(stack.enter_context(httpx.Client()))
            with load(call, count) as outcomes:
                callers = Callers(outcomes)
                wait_until(lambda: len(outcomes) > 2 * count, seconds=CALLERS_TIMEOUT)
                yield callers
                time.sleep(0.5)
        callers.check()


Serve = Callable[..., Service]


@pytest.fixture
def serve(models: Path, digits: Any, tmp_path: Path) -> Iterator[Serve]:
    """Start a gateway and, with `model_server`, a model server for one test."""
    with ExitStack() as stack:

        def start(
            folder: Path = models,
            model_server: bool = True,
            environment: dict[str, str] | None = None,
            limits: dict[int, int] | None = None,
        ) -> Service:
            grpc_port = free_port()
            gateway = stack.enter_context(
                gateway_process(
                    f"127.0.0.1:{grpc_port}", environment, command=GATEWAY, limits=limits, workers=2
                )
            )
            service = Service(folder, digits, gateway.process, gateway.url, grpc_port, tmp_path / "log")
            stack.callback(_stop_model_server, service)
            if model_server:
                service.start_model_server(env={**os.environ, **(environment or {})})
                service.wait_until_ready()
            return service

        yield start


def _stop_model_server(service: Service) -> None:
    if service.model_server is not None:
        with suppress(ProcessLookupError):
            service.model_server.send_signal(signal.SIGCONT)
        service.kill_model_server()
