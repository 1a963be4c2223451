"""The gateway under uvicorn, whose network side is compiled, in several processes."""

import os
import ssl
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from uvicorn import Config, Server

from digit_serving import allocator, sockets
from digit_serving.gateway import tls
from digit_serving.gateway.backlog import Backlog
from digit_serving.gateway.settings import Settings
from digit_serving.gateway.workers import Beat, Port, Workers

# For each process: from each of them libuv takes one caller a turn, and under load a turn takes 10 ms.
_SOCKETS = 8
_GRACE_SECONDS = 10
_IDLE_SECONDS = 75


def serve(settings: Settings) -> None:
    """Answer until SIGTERM or SIGINT, then finish what is being answered.

    A worker process that dies or hangs is replaced. Raises WorkerFailedError where one can't begin.
    """
    with TemporaryDirectory(prefix="digits-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        _prepare(settings)
        address = sockets.resolve(settings.host)
        # Of sockets that all had, whoever is first may take all who call at once.
        ports = [
            tuple(sockets.shared(address, settings.port) for _ in range(_SOCKETS))
            for _ in range(settings.workers)
        ]
        Workers(ports, partial(_answer, settings)).run()


def _prepare(settings: Settings) -> None:
    """Import and set what all processes need, before they are forked."""
    # With these comes prometheus_client, which looks for its folder when it is imported.
    import cv2

    from digit_serving.gateway import app, connection, logs  # noqa: F401
    from digit_serving.gateway.bodies import ignore_doubts

    logs.configure(settings)
    allocator.keep_freed()
    # Requests are worked on at once already: to wake a thread for each takes more than it saves.
    cv2.setNumThreads(1)
    ignore_doubts()


def _config(settings: Settings) -> Config:
    from digit_serving.gateway.app import create_asgi_app
    from digit_serving.gateway.connection import Connection
    from digit_serving.gateway.metrics import Metrics

    certificate, key = settings.tls_certificate, settings.tls_key
    backlog, metrics = Backlog(settings.queue, settings.patience), Metrics()
    return Config(
        partial(create_asgi_app, settings, backlog, metrics),
        factory=True,
        interface="asgi3",
        http=partial(Connection, backlog, metrics),  # type: ignore[arg-type]
        ws="none",
        lifespan="on",
        loop="uvloop",
        proxy_headers=False,
        server_header=False,
        # Each request has its line in the gateway's own log.
        access_log=False,
        log_config=None,
        log_level="error",
        ssl_context_factory=partial(_encryption, certificate, key) if certificate else None,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )


def _answer(settings: Settings, port: Port, beat: Beat) -> None:
    from prometheus_client import values

    number = os.getpid()
    # Else it asks the kernel for it twice each time that it counts.
    values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]
    _Worker(_config(settings), beat).run(list(port))


class _Worker(Server):
    def __init__(self, config: Config, beat: Beat) -> None:
        super().__init__(config)
        self._beat = beat

    async def on_tick(self, counter: int) -> bool:
        self._beat()
        return await super().on_tick(counter)


def _encryption(certificate: Path, key: Path | None, *_: object) -> ssl.SSLContext:
    return tls.server(certificate, key)
