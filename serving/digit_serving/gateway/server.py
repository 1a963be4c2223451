"""The gateway under gunicorn, which supervises its processes, with uvicorn's HTTP server in each of them."""

import gc
import os
import signal
import ssl
from functools import partial
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from gunicorn.app.base import BaseApplication
from uvicorn_worker import UvicornWorker

from digit_serving.gateway import logging, tls
from digit_serving.gateway.http_limits import LimitedHttpProtocol
from digit_serving.gateway.settings import Settings

_GRACE_SECONDS = 10  # for requests under way at the end
_HUNG_SECONDS = 4  # without a sign of life from a worker's event loop
_KEEP_ALIVE_SECONDS = 75  # longer than proxies keep connections, so that none is closed under a request
_ACCEPTS = 4  # connections that a worker accepts in an iteration of its event loop


def serve(settings: Settings) -> None:
    """Answer until SIGTERM or SIGINT, then finish the requests under way, and exit.

    gunicorn replaces a worker that dies or hangs, and exits with status 3 where one fails to start.
    """
    # prometheus_client reads the variable when it is imported; its files add up what the workers count.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = mkdtemp(prefix="digits-metrics-")
    _Server(settings).run()


class _Server(BaseApplication):  # type: ignore[misc]
    """gunicorn's application object: its settings, and the ASGI application that workers inherit."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        host = self._settings.host
        options: dict[str, Any] = {
            "bind": f"[{host}]:{self._settings.port}" if ":" in host else f"{host}:{self._settings.port}",
            "workers": self._settings.workers,
            "worker_class": _worker_class(self._settings),
            "preload_app": True,
            "timeout": _HUNG_SECONDS,
            "graceful_timeout": _GRACE_SECONDS + 5,
            "keepalive": _KEEP_ALIVE_SECONDS,
            "control_socket_disable": True,
            "logconfig_dict": logging.config(self._settings),
            "when_ready": _stop_on_interrupt,
            "post_fork": _duplicate_listener,
            "on_exit": _remove_counts,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Import and set up all that the workers share before they are forked."""
        import cv2

        from digit_serving.gateway.app import Gateway
        from digit_serving.gateway.request_parsing import ignore_doubts

        # Requests run side by side already: waking a thread for each costs more than it gains.
        cv2.setNumThreads(1)
        ignore_doubts()
        # Garbage collection would touch, and so copy, the pages that forked processes share.
        gc.freeze()
        # Answered requests leave no reference cycles, and those that wait are many objects to go through.
        gc.set_threshold(50_000)
        return Gateway(self._settings)


class _Worker(UvicornWorker):  # type: ignore[misc]
    """uvicorn's worker for gunicorn, which ends with its arbiter even where that was killed."""

    def notify(self) -> None:
        super().notify()
        if os.getppid() != self.ppid:
            signal.raise_signal(signal.SIGTERM)


def _worker_class(settings: Settings) -> type[_Worker]:
    certificate, key = settings.tls_certificate, settings.tls_key
    options = {
        "http": LimitedHttpProtocol,
        "loop": "uvloop",
        "ws": "none",
        "lifespan": "on",
        "interface": "asgi3",
        "proxy_headers": False,
        "server_header": False,
        # Each request has its line in the gateway's own log.
        "access_log": False,
        "ssl_context_factory": partial(_server_tls, certificate, key) if certificate else None,
        "timeout_graceful_shutdown": _GRACE_SECONDS,
    }
    return type("GatewayWorker", (_Worker,), {"CONFIG_KWARGS": options})


def _server_tls(certificate: Path, key: Path | None, *_: object) -> ssl.SSLContext:
    return tls.server(certificate, key)


def _stop_on_interrupt(_: object) -> None:
    """Have SIGINT end the server in good order, as SIGTERM does; gunicorn drops what is under way."""
    signal.signal(signal.SIGINT, lambda *_: signal.raise_signal(signal.SIGTERM))


def _duplicate_listener(_: object, worker: Any) -> None:
    """Have the worker listen through several descriptors of its socket.

    uvloop accepts one connection per descriptor and iteration. Where pictures make an iteration last 10 ms,
    the health check that comes after 200 connections would wait for two seconds.
    """
    worker.sockets = [listener.dup() for listener in worker.sockets for _ in range(_ACCEPTS)]


def _remove_counts(_: object) -> None:
    rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
