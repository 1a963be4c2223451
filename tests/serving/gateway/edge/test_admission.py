"""Admission control: capacity, queue time, probes and bodies, before small ASGI applications."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from digit_serving.gateway.bridge import Message, Receive, Scope, Send
from digit_serving.gateway.edge.admission import Admission
from digit_serving.gateway.edge.http_limits import ABANDONED
from digit_serving.gateway.settings import Settings
from tests.serving.gateway.helpers import echo

CAPACITY = 3


class Caller:
    """Request whose body arrives in parts, and its response."""

    def __init__(
        self, *parts: bytes, path: str = "/v1/predict", headers: dict[str, str] | None = None
    ) -> None:
        fields = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        self.scope: Scope = {"type": "http", "path": path, "query_string": b"", "headers": fields}
        self.scope["client"] = ("192.0.2.1", 1)
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


class GatedAdmission:
    """Admission in front of an application that waits for `release`; counts refusals."""

    def __init__(
        self,
        max_queue_time: float = 60.0,
        max_body: int = 100,
        takes_body: Callable[[Scope], bool] = lambda _: True,
        **settings: Any,
    ) -> None:
        self.release = asyncio.Event()
        self.refusals = self.calls = 0
        defaults: dict[str, Any] = {"queue_capacity": CAPACITY, "deadline": 2 * max_queue_time}
        chosen = Settings(**(defaults | settings), max_body=max_body)
        self.admission = Admission(self._app, chosen, self._count, takes_body)

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        await self.release.wait()
        if "fails" in scope:
            raise LookupError
        await echo(scope, receive, send)

    def _count(self, path: str) -> None:
        self.refusals += 1

    async def ask(self, *parts: bytes, **options: Any) -> Caller:
        """Send a request, and return it with its response."""
        caller = Caller(*parts, **options)
        await asyncio.wait_for(caller.start(self.admission), 30)
        return caller

    async def hold(self, *callers: Caller) -> list[asyncio.Task[None]]:
        """Start requests that wait for `release`, or for the rest of their bodies."""
        tasks = [caller.start(self.admission) for caller in callers]
        await settle()
        return tasks


async def settle() -> None:
    """Run the event loop until every task waits."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_admission_beyond_capacity_refuses_unread_request_and_admits_probes() -> None:
    gated = GatedAdmission()
    held = [Caller(b"x") for _ in range(CAPACITY)]
    tasks = await gated.hold(*held)
    refused = await gated.ask(headers={"x-request-id": "mine"})
    assert refused.status == 429
    assert refused.headers[b"retry-after"] == b"1"
    assert refused.headers[b"content-type"] == b"application/problem+json"
    problem = json.loads(refused.body)
    assert (problem["code"], problem["request_id"]) == ("overloaded", "mine")
    assert problem["detail"] == "The service is overloaded. Try again later."
    assert gated.refusals == 1
    probes = [Caller(b"", path=path) for path in ("/livez", "/readyz", "/metrics")]
    tasks += await gated.hold(*probes)
    gated.release.set()
    await asyncio.gather(*tasks)
    assert [caller.status for caller in (*held, *probes)] == [200] * (CAPACITY + 3)
    assert (await gated.ask(b"x")).status == 200


async def test_admission_senders_of_a_few_bytes_take_no_place() -> None:
    gated = GatedAdmission()
    gated.release.set()
    slow = [Caller() for _ in range(10 * CAPACITY)]
    for caller in slow:
        caller.send_part(b"12", more=True)
    tasks = await gated.hold(*slow)
    assert (await gated.ask(b"x")).status == 200
    # One after another: all at once, more than the capacity may wait for the event loop.
    for caller, task in zip(slow, tasks, strict=True):
        caller.send_part(b"34", more=False)
        await task
    assert {caller.status for caller in slow} == {200}
    assert gated.refusals == 0


async def test_admission_large_bodies_hold_a_place_while_they_arrive() -> None:
    gated = GatedAdmission(max_body=1_000_000)
    large = [Caller() for _ in range(CAPACITY)]
    for caller in large:
        caller.send_part(bytes(100_000), more=True)
    tasks = await gated.hold(*large)
    assert (await gated.ask(b"x")).status == 429
    gated.release.set()
    for caller in large:
        caller.send_part(b"", more=False)
    await asyncio.gather(*tasks)
    assert {caller.status for caller in large} == {200}


async def test_admission_bodies_beyond_the_memory_are_refused_at_once_or_as_they_arrive() -> None:
    gated = GatedAdmission(max_body=1_000_000, body_memory=1_000_100, queue_capacity=100)
    size = {"content-length": "400000"}
    held = [Caller(headers=size) for _ in range(3)]
    for caller in held:
        caller.send_part(bytes(300_000), more=True)
    tasks = await gated.hold(*held)
    refused = await gated.ask(headers=size)
    assert (refused.status, refused.headers[b"retry-after"]) == (429, b"1")
    small, probe = Caller(b"x"), Caller(b"", path="/livez")
    # The first rest fits, the others don't before it is answered.
    held[0].send_part(bytes(100_000), more=False)
    for caller in held[1:]:
        caller.send_part(bytes(700_000), more=False)
    tasks += await gated.hold(small, probe)
    gated.release.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 30)
    assert [caller.status for caller in (small, probe, *held)] == [200, 200, 200, 429, 429]
    assert (await gated.ask(bytes(900_000))).status == 200, "the memory is free again"


@pytest.mark.parametrize("headers", [{"content-length": "70000"}, {"transfer-encoding": "chunked"}])
async def test_admission_long_body_of_no_use_is_not_received(headers: dict[str, str]) -> None:
    gated = GatedAdmission(max_body=1_000_000, takes_body=lambda _: False)
    gated.release.set()
    long, short = await gated.ask(headers=headers), await gated.ask(b"12", headers={"content-length": "2"})
    assert [(caller.status, caller.body) for caller in (long, short)] == [(200, b""), (200, b"12")]


async def test_admission_behind_proxies_limits_requests_by_the_address_that_they_name() -> None:
    gated = GatedAdmission(trusted_proxies=2, address_connections=1)

    def named(forwarded: str) -> dict[str, str]:
        return {"x-forwarded-for": forwarded} if forwarded else {}

    addresses = ("192.0.2.7, 10.0.0.1", "2001:db8:0:1::1, 10.0.0.1", "")
    held = [Caller(b"x", headers=named(address)) for address in addresses]
    tasks = await gated.hold(*held)
    # The caller chooses all but the addresses that the two proxies append.
    same = ["203.0.113.9, 192.0.2.7, 10.0.0.1", "2001:db8:0:1::2,10.0.0.1", "192.0.2.1,10.0.0.1", "10.0.0.1"]
    refused = [await gated.ask(b"x", headers=named(address)) for address in same]
    assert [each.status for each in refused] == [429] * 4
    gated.release.set()
    probe = await gated.ask(b"x", headers=named(addresses[0]), path="/livez")
    await asyncio.gather(*tasks)
    again = await gated.ask(b"x", headers=named(addresses[0]))
    assert [each.status for each in (*held, probe, again)] == [200] * 5


async def test_admission_body_is_one_message_truncated_beyond_max_body() -> None:
    gated = GatedAdmission(max_body=100)
    gated.release.set()
    assert (await gated.ask(b"12", b"34", b"5")).body == b"12345"
    assert (await gated.ask(bytes(100), headers={"content-length": "100"})).body == bytes(100)
    assert (await gated.ask(headers={"content-length": "101"})).body == b""
    assert (await gated.ask(bytes(60), bytes(60), bytes(60))).body == bytes(120)


async def test_admission_disconnected_sender_or_failed_request_frees_capacity() -> None:
    gated = GatedAdmission()
    gated.release.set()
    for _ in range(2 * CAPACITY):
        broken = Caller(b"x")
        broken.scope["fails"] = True
        with pytest.raises(LookupError):
            await broken.start(gated.admission)
    for _ in range(2 * CAPACITY):
        caller = Caller()
        caller.send_part(b"12", more=True)
        caller.messages.put_nowait({"type": "http.disconnect"})
        await asyncio.wait_for(caller.start(gated.admission), 30)
        assert caller.sent == []
    assert (gated.refusals, gated.calls) == (0, 2 * CAPACITY), "the application saw the failed requests only"


def busy_admission(max_queue_time: float) -> Admission:
    """Return admission in front of an application that computes for 20 ms without yielding."""

    async def compute(scope: Scope, receive: Receive, send: Send) -> None:
        end = time.monotonic() + 0.02
        while time.monotonic() < end:
            pass
        await echo(scope, receive, send)

    settings = Settings(queue_capacity=100, deadline=2 * max_queue_time, max_body=100)
    return Admission(compute, settings, lambda _: None)


async def test_admission_burst_of_requests_leaves_loop_responsive() -> None:
    admission = busy_admission(max_queue_time=60.0)
    callers = [Caller(b"x") for _ in range(20)]
    burst = asyncio.gather(*(caller.start(admission) for caller in callers))
    iterations = 0
    while not burst.done():
        await asyncio.sleep(0)
        iterations += 1
    assert iterations >= 20
    assert [caller.status for caller in callers] == [200] * 20


async def test_admission_waiting_requests_whose_connection_ended_are_not_answered() -> None:
    admission = busy_admission(max_queue_time=60.0)
    callers = [Caller(b"x") for _ in range(4)]
    tasks = [caller.start(admission) for caller in callers]
    await asyncio.sleep(0)
    # The first has its turn at once, so the others wait for theirs.
    for gone in callers[1:3]:
        gone.scope[ABANDONED] = True
    await asyncio.gather(*tasks)
    assert [caller.status for caller in callers] == [200, None, None, 200]


@pytest.mark.xdist_group("timing")
async def test_admission_after_max_queue_time_refuses() -> None:
    admission = busy_admission(max_queue_time=0.1)
    callers = [Caller(b"x") for _ in range(20)]
    await asyncio.gather(*(caller.start(admission) for caller in callers))
    statuses = [caller.status for caller in callers]
    answered = statuses.count(200)
    assert 3 <= answered < 20
    assert statuses == [200] * answered + [429] * (20 - answered)
