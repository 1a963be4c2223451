"""Throughput of 1,024 connections whose clients obey `Retry-After`, as a share of that of 64.

The clients are pinned to the last core: their CPU time grows with their number. Needs two cores. Run as
python -m benchmarks.overload.
"""

import asyncio
import os
import random
import re
import time
from collections import Counter

import uvloop

from benchmarks.service import PORTS, article_models, digits, print_row
from benchmarks.throughput import bodies
from benchmarks.throughput.bodies import Body

ROUNDS = 3
WARM_UP, SECONDS = 5.0, 10.0
SATURATING = 64
"""Connections that saturate the service without a refusal."""
WAITING = 1024
JITTER = 0.1
"""Largest random delay after Retry-After, in seconds, as of digit_client.RetryPolicy."""
KINDS = ["28×28 PNG", "280×280 RGB PNG", "64 images, JSON of PNGs", "640×480 photograph JPEG"]


def main() -> None:
    """Print both rates of answers, their ratio, and the refusals a second, for each kind of request."""
    cores = sorted(os.sched_getaffinity(0))
    sent = bodies.write()
    print_row("answers a second", f"c={SATURATING}", f"c={WAITING}", "share", "refused")
    for kind in KINDS:
        os.sched_setaffinity(0, cores[:-1])
        with digits(models=article_models()).running():
            os.sched_setaffinity(0, cores[-1:])
            for _ in range(ROUNDS):
                few, many = (uvloop.run(rates(sent[kind], count)) for count in (SATURATING, WAITING))
                print_row(kind, few[200], many[200], many[200] / few[200], many[429])


async def rates(body: Body, connections: int) -> dict[int, float]:
    """Return the responses a second by status, after a warm-up."""
    content = body.file.read_bytes()
    head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {body.content_type}\r\n"
    request = f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content
    counted: Counter[int] = Counter()
    start = time.monotonic() + WARM_UP
    await asyncio.gather(*(send(request, start, counted) for _ in range(connections)))
    return {status: counted[status] / SECONDS for status in (200, 429)}


async def send(request: bytes, start: float, counted: Counter[int]) -> None:
    """Send requests over one connection at a time, and count the responses within SECONDS of `start`."""
    while time.monotonic() < start + SECONDS:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(PORTS["DIGITS_PORT"]))
        head = b""
        while b"connection: close" not in head and time.monotonic() < start + SECONDS:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = re.search(rb"content-length: *(\d+)", head)
            await reader.readexactly(int(length[1]) if length else 0)
            status = int(head[9:12])
            if start <= time.monotonic() < start + SECONDS:
                counted[status] += 1
            if status == 429:
                wait = re.search(rb"retry-after: *(\d+)", head)
                await asyncio.sleep(int(wait[1]) if wait else 0)
                await asyncio.sleep(random.uniform(0, JITTER))  # noqa: S311
        writer.close()


if __name__ == "__main__":
    main()
