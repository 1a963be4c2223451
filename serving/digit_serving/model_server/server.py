"""Model server process: start of the core and its transports, and graceful shutdown."""

import gc
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import grpc
import waitress

from digit_serving import sockets
from digit_serving.errors import ServingError
from digit_serving.model_server import config, grpc_service
from digit_serving.model_server.core import ServerCore
from digit_serving.model_server.flags import Options
from digit_serving.model_server.rest import RestApi
from digit_serving.model_server.servable import start_tensorflow

log = logging.getLogger(__name__)

_GRACE = 5.0
"""Seconds in which the requests in flight at shutdown may end."""


def serve(options: Options) -> Callable[[], None]:
    """Start the servers once the models are available. Return a function that stops them gracefully.

    Exits with 255 and an error on standard output, as tensorflow_model_server does, if the start fails.
    """
    levels, level = logging.getLevelNamesMapping(), os.environ.get("DIGITS_LOG_LEVEL", "").upper()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=levels.get(level, logging.INFO))
    for name in ("tensorflow", "waitress.queue"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Exclude TensorFlow's own objects from garbage collection: to scan them takes 1/6 s.
    gc.freeze()
    start_tensorflow()
    try:
        core = create_core(options)
        grpc_server, rest = grpc_service.start(options, core), _start_rest(options, core)
    except ServingError as error:
        sys.stdout.write(f"Failed to start server. Error: {error}\n")
        sys.stdout.flush()
    except Exception:
        log.exception("Failed to start server.")
    else:
        log.info("Running gRPC ModelServer at port %d, REST at port %d", options.port, options.rest_api_port)
        return lambda: _stop(grpc_server, rest)
    os._exit(255)  # sys.exit would wait for worker threads


def create_core(options: Options) -> ServerCore:
    """Return a core once its models are available. Raises ServingError for bad flags, files or models."""
    # A variable names the key: tensorflow_model_server takes the same flags, and would refuse a new one.
    public_key = os.environ.get("DIGITS_MODEL_PUBLIC_KEY")
    core = ServerCore(options, Path(public_key) if public_key else None)
    core.reload(config.read_models(options))
    if options.model_config_file:
        Thread(target=_poll_config, args=(options, core), daemon=True).start()
    return core


def _stop(grpc_server: grpc.Server, rest: Any) -> None:
    stopped = grpc_server.stop(_GRACE)
    if rest:
        # waitress waits for running requests, and closes the connections of waiting ones.
        rest.task_dispatcher.shutdown(timeout=_GRACE)
    stopped.wait()
    log.info("Stopped")


def _poll_config(options: Options, core: ServerCore) -> None:
    while (seconds := options.model_config_file_poll_wait_seconds) > 0:
        time.sleep(seconds)
        try:
            # Do not wait for new models: a label of another model may move meanwhile.
            core.configure(config.read_models(options))
        except ServingError as error:
            log.error("Failed to reload %s: %s", options.model_config_file, error)


def _start_rest(options: Options, core: ServerCore) -> Any:
    """Start the REST API. Return its server, or None: if it can't listen, the drop-in serves gRPC alone."""
    if options.rest_api_port in (0, options.port):
        return None
    prometheus = config.read(options.monitoring_config_file, "MonitoringConfig").prometheus_config
    path = (prometheus.path or "/monitoring/prometheus/metrics") if prometheus.enable else ""
    try:
        listener = sockets.listen(options.host, options.rest_api_port)
    except OSError as error:
        log.error("The REST server can't listen on port %d: %s", options.rest_api_port, error)
        return None
    threads = options.rest_api_num_threads or 4 * (os.cpu_count() or 1)
    app = RestApi(options, core, path)
    # waitress spools bodies to the disk, and cuts off connections with longer ones. Up to twice the limit,
    # RestApi answers with a sentence instead.
    limit = int(min(2 * core.budget.limit, 2**30))
    server = waitress.create_server(
        app, sockets=[listener], threads=threads, connection_limit=1000, max_request_body_size=limit
    )
    Thread(target=server.run, name="rest", daemon=True).start()
    return server
