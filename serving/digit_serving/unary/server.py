"""A gRPC server of unary calls, with a thread for each connection."""

import logging
import random
import socket
import ssl
import struct
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread

from digit_serving.unary.calls import Calls, Handler
from digit_serving.unary.session import Session
from digit_serving.unary.tls import TlsSocket

log = logging.getLogger(__name__)

_TICK = 0.1
# A client that takes nothing for so long, while there is something for it, is given up.
_SEND_SECONDS = 20
_TIMEVAL = struct.pack("@ll", _SEND_SECONDS, 0)


class Server:
    """Answers calls of the handlers' methods on every socket that it is told to listen on.

    `threads` bounds how many calls that take long are worked on at once. A connection takes no more calls at
    the age of `max_age` seconds, ten percent more or less, and ends when those under way are answered, after
    `age_grace` seconds at the latest.
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        threads: int,
        *,
        max_age: float = float("inf"),
        age_grace: float = float("inf"),
    ) -> None:
        self._calls, self._pool = Calls(handlers), ThreadPoolExecutor(threads, "call")
        self._max_age, self._age_grace = max_age, age_grace
        self._listeners: list[socket.socket] = []
        self._sessions: set[Session] = set()
        self._lock = Lock()  # of the sessions and of what follows
        self._stopping: float | None = None
        self._ended = Event()
        Thread(target=self._tend, name="tend", daemon=True).start()

    def listen(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Take the connections of a listening socket, which is closed at the end."""
        self._listeners.append(listener)
        Thread(target=self._accept, args=(listener, tls), name="accept", daemon=True).start()

    def stop(self, grace: float) -> None:
        """Take no more connections and calls; those under way have that many seconds. Waits for nothing."""
        with self._lock:
            self._stopping = grace
            for session in self._sessions:
                session.retire(grace)
        for listener in self._listeners:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts, which closing doesn't
            if listener.family == socket.AF_UNIX:
                Path(listener.getsockname()).unlink(missing_ok=True)
            listener.close()

    def join(self) -> None:
        """Wait until every connection has ended."""
        self._ended.wait()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _tend(self) -> None:
        while not self._ended.is_set():
            with self._lock:
                sessions, stopping = list(self._sessions), self._stopping is not None
            now = time.monotonic()
            for session in sessions:
                session.tend(now)
            if stopping and not sessions:
                self._ended.set()
            time.sleep(_TICK)

    def _accept(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        while self._stopping is None:
            try:
                connection, _ = listener.accept()
                Thread(target=self._serve, args=(connection, tls), name="session", daemon=True).start()
            except (OSError, RuntimeError) as error:
                if self._stopping is None:  # there are too many connections, or one is gone already
                    log.warning("Can't accept a connection: %s", error)
                    time.sleep(_TICK)

    def _serve(self, connection: socket.socket, tls: ssl.SSLContext | None) -> None:
        try:
            _prepare(connection)
            transport = TlsSocket(connection, tls) if tls else connection
        except OSError as error:
            log.info("A connection failed: %s", error)
            connection.close()
            return
        age = self._max_age * random.uniform(0.9, 1.1)  # noqa: S311
        session = Session(transport, self._calls, self._pool, age, self._age_grace, self._forget)
        with self._lock:
            if self._stopping is not None:
                connection.close()
                return
            self._sessions.add(session)
        session.serve()

    def _forget(self, session: Session) -> None:
        with self._lock:
            self._sessions.discard(session)


def _prepare(connection: socket.socket) -> None:
    if connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL)
