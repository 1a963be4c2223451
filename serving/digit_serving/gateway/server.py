"""The gateway under Granian, a WSGI server whose network side is compiled."""

import os
from collections.abc import Callable
from functools import partial
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server import Server

from digit_serving import signals, sockets
from digit_serving.gateway import logs
from digit_serving.gateway.settings import Settings

if TYPE_CHECKING:
    from flask import Flask

_GRACE_SECONDS = 10
# For health checks, and to refuse what is too much.
_SPARE_THREADS = 16
# Of each process. Those that wait for one beyond are not refused, so that it takes more than most may open.
_CONNECTIONS = 4096


def serve(settings: Settings) -> None:
    """Answer until SIGTERM or SIGINT, then finish what is being answered.

    A worker process that dies is replaced; where its successor dies within seconds as well, all end.
    """
    with TemporaryDirectory(prefix="digits-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        # Once for all workers, but not before: what counts looks for that folder when it is imported.
        from digit_serving.gateway.app import create_app

        server = Server(
            "digits-gateway",
            # It takes no names.
            address=sockets.resolve(settings.host),
            port=settings.port,
            interface=Interfaces.WSGI,
            # Without TLS no client asks for HTTP/2, other than to reach past a proxy that speaks HTTP/1.
            http=HTTPModes.http1,
            workers=settings.workers,
            blocking_threads=settings.threads + settings.queue + _SPARE_THREADS,
            backpressure=_CONNECTIONS,
            # Below that it only doubts the number of threads, which mostly wait for the model server.
            log_level=LogLevels.error,
            ssl_cert=settings.tls_certificate,
            ssl_key=settings.tls_key,
            workers_kill_timeout=_GRACE_SECONDS,
            respawn_failed_workers=True,
        )
        signals.wake_main_thread()
        server.serve(target_loader=partial(_load, create_app, settings), wrap_loader=False)


def _load(create_app: Callable[[Settings], "Flask"], settings: Settings) -> "Flask":
    signals.wake_main_thread()
    logs.configure(settings)
    import cv2

    from digit_serving.gateway.bodies import ignore_doubts

    # Requests are worked on at once already: to wake a thread for each takes more than it saves.
    cv2.setNumThreads(1)
    ignore_doubts()
    return create_app(settings)
