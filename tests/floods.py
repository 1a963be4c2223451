"""Floods without a key, on loopback: `python tests/floods.py NAME PORT SECONDS` runs one."""

import select
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass

_CONNECTS_PER_ROUND = 50
_PART_BYTES = 64 * 1024


@dataclass(frozen=True)
class Flood:
    """Connections that send `data` and read no answer; each that ends is replaced.

    `is_held` keeps a connection open after its data, otherwise it ends.
    """

    connections: int
    data: bytes
    is_held: bool = True


FLOODS = {
    "pipelines": Flood(150, b"GET / HTTP/1.1\r\n\r\n" * 14_000, is_held=False),
    "heads": Flood(3500, b"GET / HTTP/1.1\r\n" + b"aa:b\r\n" * 10_900),
    "readers": Flood(1200, b"GET /openapi.json HTTP/1.1\r\n\r\n" * 60),
}


def run(flood: Flood, port: int, seconds: float) -> int:
    """Flood the port for so long. Return the number of connections."""
    end, opened = time.monotonic() + seconds, 0
    poll, data = select.epoll(), memoryview(flood.data)
    connections: dict[int, socket.socket] = {}
    sent: dict[int, int] = {}
    while time.monotonic() < end:
        for _ in range(min(flood.connections - len(connections), _CONNECTS_PER_ROUND)):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.setblocking(False)
            connection.connect_ex(("127.0.0.1", port))
            number = connection.fileno()
            connections[number], sent[number] = connection, 0
            poll.register(number, select.EPOLLOUT | select.EPOLLRDHUP)
            opened += 1
        for number, events in poll.poll(0.05):
            is_open = events == select.EPOLLOUT
            if is_open:
                with suppress(OSError):
                    sent[number] += connections[number].send(data[sent[number] :][:_PART_BYTES])
                if sent[number] == len(data):
                    is_open = flood.is_held
                    poll.modify(number, select.EPOLLRDHUP)
            if not is_open:
                poll.unregister(number)
                connections.pop(number).close()
    for connection in connections.values():
        connection.close()
    return opened


if __name__ == "__main__":
    sys.stdout.write(f"{run(FLOODS[sys.argv[1]], int(sys.argv[2]), float(sys.argv[3]))} connections\n")
