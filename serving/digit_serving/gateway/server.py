"""The gateway under Granian, a WSGI server whose network side is compiled."""

import os
from collections.abc import Callable
from functools import partial
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from granian.constants import Interfaces
from granian.log import LogLevels
from granian.server import Server

from digit_serving.gateway import logs
from digit_serving.gateway.settings import Settings

if TYPE_CHECKING:
    from flask import Flask

_GRACE_SECONDS = 10


def serve(settings: Settings) -> None:
    """Answer until SIGTERM or SIGINT, then finish what is being answered.

    The worker processes end with the first of them that dies: whoever runs this restarts it whole.
    """
    with TemporaryDirectory(prefix="digits-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        # Once for all workers, but not before: what counts looks for that folder when it is imported.
        from digit_serving.gateway.app import create_app

        server = Server(
            "digits-gateway",
            address=settings.host,
            port=settings.port,
            interface=Interfaces.WSGI,
            workers=settings.workers,
            blocking_threads=settings.threads,
            # Below that it only doubts the number of threads, which mostly wait for the model server.
            log_level=LogLevels.error,
            workers_kill_timeout=_GRACE_SECONDS,
        )
        server.serve(target_loader=partial(_load, create_app, settings), wrap_loader=False)


def _load(create_app: Callable[[Settings], "Flask"], settings: Settings) -> "Flask":
    logs.configure(settings)
    return create_app(settings)
