"""Target of the HTTP/1 edge: bytes of a connection, before the application."""

import asyncio
import atexit
from typing import Any

from uvicorn import Config
from uvicorn.server import ServerState

from digit_serving.gateway.edge.http_limits import LimitedHttpProtocol
from tests.serving.gateway.helpers import echo

_LOOP = asyncio.new_event_loop()
atexit.register(_LOOP.close)
_CONFIG = Config(echo, ws="none", lifespan="off", log_config=None)


class _Transport(asyncio.Transport):
    """Transport that keeps what is written, until it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.is_open = b"", True

    def get_write_buffer_size(self) -> int:
        return 0

    def _ignore(self, *_: Any, **__: Any) -> None:
        pass

    set_write_buffer_limits = pause_reading = resume_reading = _ignore

    def is_closing(self) -> bool:
        return not self.is_open

    def writelines(self, parts: Any) -> None:
        if self.is_open:
            self.written += b"".join(parts)

    def close(self) -> None:
        self.is_open = False

    abort = close


def http(data: bytes) -> None:
    """Send bytes in two parts, of which the first byte tells the length of the first one, and hang up."""
    split, data = sum(data[:1]) * len(data) // 255, data[1:]
    errors: list[dict[str, Any]] = []
    _LOOP.set_exception_handler(lambda _, context: errors.append(context))
    _LOOP.run_until_complete(_receive([data[:split], data[split:]]))
    assert not errors, errors


async def _receive(parts: list[bytes]) -> None:
    transport = _Transport()
    protocol = LimitedHttpProtocol(_CONFIG, ServerState(), {}, _LOOP)
    protocol.connection_made(transport)
    for part in parts:
        if transport.is_open:
            protocol.data_received(part)
            for _ in range(5):
                await asyncio.sleep(0)
    if transport.is_open:
        protocol.eof_received()
    protocol.connection_lost(None)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not transport.written or transport.written.startswith(b"HTTP/1.1 ")
    assert protocol.memory.held == 0
