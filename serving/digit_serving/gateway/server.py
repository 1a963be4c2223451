"""The gateway under Granian, a WSGI server whose network side is compiled."""

import logging
from functools import partial

from flask import Flask
from granian.constants import Interfaces
from granian.log import LogLevels
from granian.server import Server

from digit_serving.gateway.app import create_app
from digit_serving.gateway.settings import Settings

_GRACE_SECONDS = 10


def serve(settings: Settings) -> None:
    """Answer until SIGTERM or SIGINT, then finish what is being answered.

    The worker processes end with the first of them that dies: whoever runs this restarts it whole.
    """
    server = Server(
        "digits-gateway",
        address=settings.host,
        port=settings.port,
        interface=Interfaces.WSGI,
        workers=settings.workers,
        blocking_threads=settings.threads,
        # Below that it only doubts the number of threads, which wait for the model server most of the time.
        log_level=LogLevels.error,
        workers_kill_timeout=_GRACE_SECONDS,
    )
    server.serve(target_loader=partial(_load, settings), wrap_loader=False)


def _load(settings: Settings) -> Flask:
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s")
    return create_app(settings)
