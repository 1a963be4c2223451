"""TLS handshakes: they take turns, and end after five seconds."""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable

_HANDSHAKE_SECONDS = 5.0
"""Maximum seconds from an accepted connection to the end of its handshake."""
_MAX_BEGUN = 128
"""Maximum handshakes of an address that have begun: all may ask for a signature in the same iteration."""


class AddressConnections(dict[str, dict[object, Callable[[], object]]]):
    """Functions that close the connections of each address, oldest first."""

    def add(self, address: str, connection: object, close: Callable[[], object], most: int) -> None:
        """Add a connection. Close the oldest of its address if there are more than `most`."""
        connections = self.setdefault(address, {})
        connections[connection] = close
        if len(connections) > most:
            connections.pop(next(iter(connections)))()

    def discard(self, address: str, connection: object) -> None:
        """Remove a connection if it is there."""
        if connections := self.get(address):
            connections.pop(connection, None)
            if not connections:
                del self[address]


class Handshakes:
    """TLS handshakes of a process: an iteration of the event loop begins one, once its first bytes are there.

    The signature with an RSA key takes milliseconds, for everybody who sends a ClientHello. So addresses take
    turns, and the newest connection of an address is first: its caller is the likeliest to wait still.
    `context` returns the context of the next handshake.
    """

    def __init__(self, context: Callable[[], ssl.SSLContext]) -> None:
        self._context = context
        self._turns: dict[str, list[asyncio.Future[None]]] = {}
        """Connections whose ClientHello arrives, by address, newest last."""
        self._begun = AddressConnections()
        self._tasks = set[asyncio.Task[bool]]()

    def begin(
        self, transport: asyncio.Transport, protocol: asyncio.Protocol, address: str
    ) -> asyncio.Task[bool]:
        """Take a TCP connection from its transport, and connect `protocol` after the handshake.

        Return the task, which may be cancelled. `protocol.connection_lost` learns of a failure.
        """
        # The event loop has not read yet, so that the new owner of the socket gets every byte.
        transport.set_protocol(asyncio.Protocol())
        try:
            connection = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        finally:
            transport.abort()
        task = asyncio.create_task(self._connect(connection, protocol, address))

        def end(task: asyncio.Task[bool]) -> None:
            self._tasks.discard(task)
            if task.cancelled() or not task.result():
                connection.close()
                protocol.connection_lost(ConnectionAbortedError())

        self._tasks.add(task)
        task.add_done_callback(end)
        return task

    async def _connect(self, connection: socket.socket, protocol: asyncio.Protocol, address: str) -> bool:
        """Return False if the handshake fails."""
        loop, turn = asyncio.get_running_loop(), asyncio.Future[None]()
        task = asyncio.current_task()
        assert task
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                loop.add_reader(connection, self._wait_for_turn, connection, turn, address)
                try:
                    await turn
                finally:
                    loop.remove_reader(connection)
                self._begun.add(address, turn, task.cancel, _MAX_BEGUN)
                await loop.connect_accepted_socket(lambda: protocol, connection, ssl=self._context())
                return True
        except OSError:
            return False
        finally:
            self._begun.discard(address, turn)

    def _wait_for_turn(self, connection: socket.socket, turn: asyncio.Future[None], address: str) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(connection)
        if not self._turns:
            loop.call_soon(self._begin_next)
        self._turns.setdefault(address, []).append(turn)

    def _begin_next(self) -> None:
        """Let the newest connection of the next address begin."""
        address = next(iter(self._turns))
        turns = self._turns.pop(address)
        if not (turn := turns.pop()).done():
            turn.set_result(None)
        if turns:
            # The address becomes the last one.
            self._turns[address] = turns
        if self._turns:
            asyncio.get_running_loop().call_soon(self._begin_next)
