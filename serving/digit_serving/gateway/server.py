"""The gateway under uvicorn, whose network side is compiled, in several processes."""

import asyncio
import multiprocessing
import os
import signal
import ssl
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from uvicorn import Config
from uvicorn.supervisors import Multiprocess

from digit_serving import sockets
from digit_serving.gateway import tls
from digit_serving.gateway.http1 import Http1
from digit_serving.gateway.settings import Settings

if TYPE_CHECKING:
    from digit_serving.gateway.asgi import Application

_GRACE_SECONDS = 10
_IDLE_SECONDS = 75


def serve(settings: Settings) -> None:
    """Answer until SIGTERM or SIGINT, then finish what is being answered.

    A worker process that dies or hangs is replaced; where one can't start, all end.
    """
    with TemporaryDirectory(prefix="digits-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        port = sockets.shared(sockets.resolve(settings.host), settings.port)
        certificate, key = settings.tls_certificate, settings.tls_key
        encryption = partial(_encryption, certificate, key) if certificate else None
        config = Config(
            partial(_load, settings),
            factory=True,
            interface="asgi3",
            http=Http1,
            ws="none",
            lifespan="on",
            loop="uvloop",
            workers=settings.workers,
            proxy_headers=False,
            server_header=False,
            # Each request has its line in the gateway's own log.
            access_log=False,
            log_config=None,
            log_level="error",
            ssl_context_factory=encryption,
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        Multiprocess(config, [port]).run()


def _load(settings: Settings) -> "Application":
    """In each process, within its event loop."""
    # The process that starts the others needs none of these.
    import cv2

    from digit_serving.gateway import logs
    from digit_serving.gateway.app import create_asgi_app
    from digit_serving.gateway.bodies import ignore_doubts

    logs.configure(settings)
    # Requests are worked on at once already: to wake a thread for each takes more than it saves.
    cv2.setNumThreads(1)
    ignore_doubts()
    _end_with_parent()
    return create_asgi_app(settings)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        asyncio.get_running_loop().add_reader(parent.sentinel, signal.raise_signal, signal.SIGTERM)


def _encryption(certificate: Path, key: Path | None, *_: object) -> ssl.SSLContext:
    return tls.server(certificate, key)
