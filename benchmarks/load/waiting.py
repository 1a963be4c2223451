"""Thousands of clients that honour `Retry-After`, in one process.

Each connection sends one request after another. After a 429 it waits for `Retry-After` and a random delay of
at most a tenth of a second, the jitter of the first retry by `digit_client.RetryPolicy`. Requests are
prebuilt and responses hardly parsed, so that the clients take little CPU time.
"""

import asyncio
import random
import re
import statistics
import time
from dataclasses import dataclass, field
from functools import partial
from typing import cast
from urllib.parse import urlsplit

import uvloop

JITTER = 0.1
"""Largest random delay after Retry-After, in seconds."""
# Seconds to wait for pending requests at the end.
_DRAIN = 30.0
_STATUS = slice(9, 12)
_HEAD_END = b"\r\n\r\n"
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_RETRY_AFTER = re.compile(rb"\r\nretry-after: *(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


@dataclass
class Outcome:
    """Latencies in seconds by status; `duration` is that of the measurement, in seconds."""

    duration: float
    times: dict[int, list[float]] = field(default_factory=dict)
    counted: dict[int, int] = field(default_factory=dict)
    """Responses received during the measurement, by status."""
    broken: int = 0
    """Connections that failed or were closed without a response."""
    unanswered: int = 0

    def rate(self, status: int) -> float:
        """Return the responses of this status per second."""
        return self.counted.get(status, 0) / self.duration

    def lines(self) -> list[str]:
        """Return a line for each status, and one for failed connections."""
        lines = [
            f"{status}: {self.rate(status):,.0f} per second, after {statistics.median(times):.3f} s "
            f"(median), {max(times):.3f} s (maximum)"
            for status, times in sorted(self.times.items())
        ]
        if self.broken or self.unanswered:
            lines.append(
                f"{self.broken} connections broke, {self.unanswered} requests stayed without response"
            )
        return lines


def run(
    url: str, body: bytes, content_type: str, connections: int, seconds: float, warm_up: float = 5.0
) -> Outcome:
    """Load the service for `warm_up` seconds, then measure it for `seconds`."""
    return uvloop.run(_run(url, body, content_type, connections, seconds, warm_up))


async def _run(
    url: str, body: bytes, content_type: str, connections: int, seconds: float, warm_up: float
) -> Outcome:
    address = urlsplit(url)
    head = (
        f"POST /v1/predict HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    start = time.monotonic() + warm_up
    load = _Load(head.encode() + body, start, start + seconds, Outcome(seconds))
    clients = [_run_client(load, str(address.hostname), address.port or 80) for _ in range(connections)]
    tasks = [asyncio.ensure_future(client) for client in clients]
    _, late = await asyncio.wait(tasks, timeout=warm_up + seconds + _DRAIN)
    for task in late:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    load.outcome.unanswered = len(late)
    return load.outcome


@dataclass
class _Load:
    request: bytes
    start: float
    end: float
    outcome: Outcome

    def record(self, status: int, sent: float, now: float) -> None:
        """Count a response, unless it belongs to the warm-up."""
        outcome = self.outcome
        if self.start <= now < self.end:
            outcome.counted[status] = outcome.counted.get(status, 0) + 1
        if sent >= self.start:
            outcome.times.setdefault(status, []).append(now - sent)


async def _run_client(load: _Load, host: str, port: int) -> None:
    """Run one client until the end; reconnect when the service closes the connection."""
    loop = asyncio.get_running_loop()
    while time.monotonic() < load.end:
        closed = loop.create_future()
        try:
            await loop.create_connection(partial(_Connection, load, closed), host, port)
            resume_at = await closed
        except OSError:
            load.outcome.broken += 1
            resume_at = time.monotonic() + JITTER
        await asyncio.sleep(resume_at - time.monotonic())


class _Connection(asyncio.Protocol):
    """Keep-alive connection with one request at a time; `closed` resolves to the next request's time."""

    def __init__(self, load: _Load, closed: "asyncio.Future[float]") -> None:
        self._load = load
        self._closed = closed
        self._received = b""
        self._is_waiting = False
        self._sent = self._resume_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        """Record a complete response, and send or schedule the next request."""
        self._received += data
        head_end = self._received.find(_HEAD_END)
        if head_end < 0:
            return
        head = self._received[: head_end + 2]
        length = _CONTENT_LENGTH.search(head)
        if length is None or len(self._received) < head_end + len(_HEAD_END) + int(length[1]):
            return
        self._received, self._is_waiting = b"", False
        status, now, pause = int(head[_STATUS]), time.monotonic(), 0.0
        self._load.record(status, self._sent, now)
        if status == 429:
            retry_after = _RETRY_AFTER.search(head)
            pause = (int(retry_after[1]) if retry_after else 0) + random.uniform(0, JITTER)  # noqa: S311
        self._resume_at = now + pause
        if _CLOSE.search(head):
            self._transport.close()
        elif pause:
            asyncio.get_running_loop().call_later(pause, self._send)
        else:
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        """Resolve `closed`, so that the client reconnects."""
        if self._is_waiting:
            self._load.outcome.broken += 1
        if not self._closed.done():
            self._closed.set_result(self._resume_at)

    def _send(self) -> None:
        if self._transport.is_closing():
            return
        if time.monotonic() >= self._load.end:
            self._transport.close()
            return
        self._is_waiting, self._sent = True, time.monotonic()
        self._transport.write(self._load.request)
