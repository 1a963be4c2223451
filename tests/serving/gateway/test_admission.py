import asyncio
import json
import time
from typing import Any

import pytest

from digit_serving.gateway.admission import Admission
from digit_serving.gateway.asgi import Message, Receive, Scope, Send
from tests.serving.gateway.conftest import echo

CAPACITY = 3


class Caller:
    """A request and what has been sent back; `parts` of its body arrive when the test puts them there."""

    def __init__(
        self, *parts: bytes, path: str = "/v1/predict", headers: dict[str, str] | None = None
    ) -> None:
        fields = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        self.scope: Scope = {"type": "http", "path": path, "headers": fields}
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        self.sent: list[Message] = []
        for part in parts:
            self.send_part(part, more=part is not parts[-1])

    def send_part(self, part: bytes, *, more: bool) -> None:
        self.messages.put_nowait({"type": "http.request", "body": part, "more_body": more})

    def start(self, admission: Admission) -> asyncio.Task[None]:
        return asyncio.create_task(admission(self.scope, self.messages.get, self._send))

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])


class Fixture:
    """Admission before an application that waits for `go_on`, and the count of its refusals."""

    def __init__(self, max_queue_time: float = 60.0, max_body: int = 100) -> None:
        self.go_on = asyncio.Event()
        self.refusals = 0
        self.admission = Admission(
            self._app,
            capacity=CAPACITY,
            max_queue_time=max_queue_time,
            max_body=max_body,
            on_refusal=self._count,
        )

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.go_on.wait()
        await echo(scope, receive, send)

    def _count(self) -> None:
        self.refusals += 1


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_requests_beyond_the_capacity_are_refused_unread() -> None:
    fixture = Fixture()
    held = [Caller(b"x") for _ in range(CAPACITY)]
    tasks = [caller.start(fixture.admission) for caller in held]
    await settle()
    refused = Caller(headers={"x-request-id": "mine"})
    await asyncio.wait_for(refused.start(fixture.admission), 1)
    assert refused.status == 429
    assert refused.headers[b"retry-after"] == b"1"
    assert refused.headers[b"content-type"] == b"application/problem+json"
    problem = json.loads(refused.body)
    assert (problem["code"], problem["request_id"]) == ("overloaded", "mine")
    assert fixture.refusals == 1
    fixture.go_on.set()
    await asyncio.gather(*tasks)
    assert [caller.status for caller in held] == [200] * CAPACITY
    after = Caller(b"x")
    await after.start(fixture.admission)
    assert after.status == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
async def test_probes_pass_a_full_service(path: str) -> None:
    fixture = Fixture()
    tasks = [Caller(b"x").start(fixture.admission) for _ in range(CAPACITY)]
    await settle()
    probe = Caller(b"", path=path)
    probing = probe.start(fixture.admission)
    fixture.go_on.set()
    await asyncio.wait_for(probing, 1)
    assert probe.status == 200
    await asyncio.gather(*tasks)


async def test_body_in_parts_reaches_the_application_as_one() -> None:
    fixture = Fixture()
    fixture.go_on.set()
    caller = Caller(b"12", b"34", b"5")
    await caller.start(fixture.admission)
    assert caller.body == b"12345"


async def test_body_that_is_too_large_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    fixture = Fixture(max_body=100)
    fixture.go_on.set()
    declared = Caller(headers={"content-length": "101"})
    await asyncio.wait_for(declared.start(fixture.admission), 1)
    assert declared.body == b""
    chunked = Caller(bytes(60), bytes(60), bytes(60))
    await asyncio.wait_for(chunked.start(fixture.admission), 1)
    assert chunked.body == bytes(120)


async def test_sender_that_goes_away_frees_its_place() -> None:
    fixture = Fixture()
    fixture.go_on.set()
    for _ in range(2 * CAPACITY):
        caller = Caller(b"12", b"34")
        caller.messages.get_nowait()
        caller.messages.get_nowait()
        caller.send_part(b"12", more=True)
        caller.messages.put_nowait({"type": "http.disconnect"})
        await asyncio.wait_for(caller.start(fixture.admission), 1)
        assert caller.sent == []
    assert fixture.refusals == 0


class Busy:
    """Admission before an application that computes for 20 ms without a pause."""

    def __init__(self, max_queue_time: float) -> None:
        self.admission = Admission(
            self._app, capacity=100, max_queue_time=max_queue_time, max_body=100, on_refusal=lambda: None
        )

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        end = time.perf_counter() + 0.02
        while time.perf_counter() < end:
            pass
        await echo(scope, receive, send)


async def longest_pause(done: Any) -> float:
    """The longest time that an iteration of the event loop takes until the awaitable is done."""
    task, longest = asyncio.ensure_future(done), 0.0
    while not task.done():
        started = time.perf_counter()
        await asyncio.sleep(0)
        longest = max(longest, time.perf_counter() - started)
    return longest


async def test_requests_that_arrive_together_leave_the_loop_time_for_others() -> None:
    busy = Busy(max_queue_time=60.0)
    callers = [Caller(b"x") for _ in range(20)]
    pause = await longest_pause(asyncio.gather(*(caller.start(busy.admission) for caller in callers)))
    assert pause < 0.2
    assert [caller.status for caller in callers] == [200] * 20


async def test_requests_that_wait_too_long_for_their_turn_are_refused() -> None:
    busy = Busy(max_queue_time=0.1)
    callers = [Caller(b"x") for _ in range(20)]
    await asyncio.gather(*(caller.start(busy.admission) for caller in callers))
    statuses = [caller.status for caller in callers]
    answered = statuses.count(200)
    assert 3 <= answered < 20
    assert statuses == [200] * answered + [429] * (20 - answered)
