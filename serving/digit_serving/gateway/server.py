"""Process supervision: gunicorn with uvicorn workers serves the gateway."""

import fcntl
import gc
import math
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from gunicorn.app.base import BaseApplication
from uvicorn_worker import UvicornWorker

from digit_serving.gateway import tls
from digit_serving.gateway.edge.handshakes import Handshakes
from digit_serving.gateway.edge.http_limits import LimitedHttpProtocol
from digit_serving.gateway.edge.memory import MemoryBudget
from digit_serving.gateway.settings import Settings

_GRACE_SECONDS = 10
"""Time for requests in flight at shutdown."""
_HEARTBEAT_TIMEOUT_SECONDS = 30
"""Time without a heartbeat from a worker's event loop after which the worker is replaced. A healthy loop may
stand still for seconds where CPU is short."""
_KEEP_ALIVE_SECONDS = 75
"""Idle time of a connection; longer than that of proxies, so that none sends a request as it is closed."""
_ACCEPTS_PER_ITERATION = 4
"""Connections that a worker accepts in an event-loop iteration."""
_SEND_BUFFER = 64 * 1024
"""Bytes of answers that the kernel holds for a caller who reads none; by default, up to 4 MiB."""


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish the requests in flight and exit.

    gunicorn replaces a worker that dies or hangs, and exits with status 3 if a worker fails to start.
    """
    # prometheus_client reads the variable at import; the folder's files hold each worker's counts.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(_metrics_folder())
    _Server(settings).run()


class _Server(BaseApplication):  # type: ignore[misc]
    """gunicorn application: its settings, and the ASGI application that workers inherit by fork."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        # Imports prometheus_client, which reads PROMETHEUS_MULTIPROC_DIR.
        from digit_serving.gateway.observers.log import log_config

        host = self._settings.host
        options: dict[str, Any] = {
            "bind": f"[{host}]:{self._settings.port}" if ":" in host else f"{host}:{self._settings.port}",
            "workers": self._settings.workers,
            "worker_class": _worker_class(self._settings),
            "preload_app": True,
            "timeout": _HEARTBEAT_TIMEOUT_SECONDS,
            # Longer than uvicorn's own timeout, after which a worker still exports its last spans.
            "graceful_timeout": _GRACE_SECONDS + 5,
            "keepalive": _KEEP_ALIVE_SECONDS,
            "control_socket_disable": True,
            "logconfig_dict": log_config(self._settings),
            "when_ready": _stop_on_interrupt,
            "post_fork": _duplicate_listener,
            "child_exit": self._count_worker_exit,
            "on_exit": _remove_files,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Import modules and create objects that the workers share, before they are forked."""
        import cv2

        from digit_serving.gateway.app import Gateway
        from digit_serving.gateway.door import features
        from digit_serving.gateway.observers.metrics import Metrics
        from digit_serving.gateway.parsing import silence_library_warnings

        # Modules of features create memory that the workers share.
        features(self._settings)
        # The supervisor's metrics have a file beside those of the workers; the exposition is their sum.
        self._metrics = Metrics()
        if self._settings.tls_certificate:
            # Read the certificate before the fork, so that only this process logs what callers refuse.
            tls.server_certificate(self._settings.tls_certificate, self._settings.tls_key)
        # Disable OpenCV's threads: requests run in parallel already, and waking threads costs too much.
        cv2.setNumThreads(1)
        silence_library_warnings()
        # Freeze the heap: garbage collection would write to, and so copy, pages that the workers share.
        gc.freeze()
        # Collect garbage rarely: requests leave no reference cycles, and a full queue is slow to scan.
        gc.set_threshold(50_000)
        return Gateway(self._settings)

    def _count_worker_exit(self, _server: object, _worker: object) -> None:
        self._metrics.worker_exits().inc()


class _Worker(UvicornWorker):  # type: ignore[misc]
    """uvicorn's gunicorn worker; exits when its arbiter is gone, even if the arbiter was killed."""

    def notify(self) -> None:
        super().notify()
        if os.getppid() != self.ppid:
            signal.raise_signal(signal.SIGTERM)


def _metrics_folder() -> Path:
    """Create the folder of the files that the workers share, and remove those of killed gateways.

    Workers inherit the lock of their folder by fork, so that it ends with the last of them.
    """
    folder = Path(mkdtemp(prefix="digits-metrics-"))
    fcntl.flock(os.open(folder, os.O_DIRECTORY), fcntl.LOCK_SH)
    # Only a locked folder gets the suffix: another gateway may start before the lock is held.
    folder = folder.rename(folder.with_suffix(".locked"))
    for other in folder.parent.glob("digits-metrics-*.locked"):
        with suppress(OSError):
            descriptor = os.open(other, os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                rmtree(other)
            finally:
                os.close(descriptor)
    return folder


def _remove_files(_: object) -> None:
    """Remove the files that the workers shared."""
    rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)


def _worker_class(settings: Settings) -> type[_Worker]:
    """Return a class with uvicorn's options: gunicorn creates its workers itself."""
    certificate, key = settings.tls_certificate, settings.tls_key
    handshakes = Handshakes(lambda: tls.server_certificate(certificate, key).context) if certificate else None
    limits = {
        "memory": MemoryBudget(settings.connection_memory),
        # Proxies hold the connections of all callers: behind them, admission counts requests.
        "address_connections": 0 if settings.trusted_proxies else settings.address_connections,
        "handshakes": handshakes,
    }
    options = {
        "http": type("GatewayProtocol", (LimitedHttpProtocol,), limits),
        "loop": "uvloop",
        "ws": "none",
        "lifespan": "on",
        "interface": "asgi3",
        "proxy_headers": False,
        "server_header": False,
        # The gateway logs each request itself.
        "access_log": False,
        "timeout_graceful_shutdown": _GRACE_SECONDS,
        # Send a heartbeat at every check: uvicorn measures the time between two on the wall clock, and
        # would send none for a while after that was set back.
        "timeout_notify": -math.inf,
    }
    return type("GatewayWorker", (_Worker,), {"CONFIG_KWARGS": options})


def _stop_on_interrupt(_: object) -> None:
    """Handle SIGINT like SIGTERM: gunicorn's own handler drops the requests in flight."""
    signal.signal(signal.SIGINT, lambda *_: signal.raise_signal(signal.SIGTERM))


def _duplicate_listener(_: object, worker: Any) -> None:
    """Duplicate the worker's listening socket, so that it accepts several connections per iteration.

    uvloop accepts one connection per descriptor and event-loop iteration. With iterations of 10 ms, a health
    check behind 200 connections would wait for two seconds.
    """
    for listener in worker.sockets:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    worker.sockets = [listener.dup() for listener in worker.sockets for _ in range(_ACCEPTS_PER_ITERATION)]
