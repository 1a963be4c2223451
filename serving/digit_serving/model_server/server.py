"""The model server as a whole: models, ports, and a graceful stop."""

import gc
import logging
import os
import time
from threading import Thread
from typing import NoReturn

import grpc
import waitress

from digit_serving import sockets
from digit_serving.model_server import config, grpc_service
from digit_serving.model_server.batching import Batcher
from digit_serving.model_server.core import Core
from digit_serving.model_server.errors import ServingError
from digit_serving.model_server.flags import Options
from digit_serving.model_server.rest import DrainMiddleware, RestApi
from digit_serving.model_server.shutdown import Shutdown

log = logging.getLogger(__name__)
_GRACE = 5.0  # seconds for the requests in flight when the server is told to stop


def run(options: Options, host: str, shutdown: Shutdown) -> NoReturn:
    """Serve until the shutdown; exit with 255, as the original, where the start fails.

    Without a `host` it listens on every address.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    for name in ("tensorflow", "waitress.queue"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Freezing takes TensorFlow's own objects out of garbage collection, which else takes a sixth of a second.
    gc.freeze()
    try:
        _serve(options, host, shutdown)
    except ServingError as error:
        log.error("Failed to start server. Error: %s", error)
    except Exception:
        log.exception("Failed to start server.")
    os._exit(255)  # leaves behind the threads that are still at work


def _serve(options: Options, host: str, shutdown: Shutdown) -> None:
    parameters = config.batching(options)
    core = Core(options, Batcher(parameters) if parameters is not None else None)
    core.reload(config.models(options))
    if options.model_config_file and options.model_config_file_poll_wait_seconds > 0:
        Thread(target=_poll, args=(options, core), daemon=True).start()
    grpc_server, rest = grpc_service.start(options, core, host), _start_rest(options, core, host)
    shutdown.stop = lambda: _stop(grpc_server, rest)
    log.info("Running gRPC ModelServer at port %d, REST at port %d", options.port, options.rest_api_port)
    shutdown.join()


def _stop(grpc_server: grpc.Server, rest: DrainMiddleware) -> None:
    stopped = grpc_server.stop(_GRACE)
    rest.drain(_GRACE)
    stopped.wait()


def _poll(options: Options, core: Core) -> None:
    while True:
        time.sleep(options.model_config_file_poll_wait_seconds)
        try:
            core.reload(config.models(options))
        except ServingError as error:
            log.error("Failed to reload %s: %s", options.model_config_file, error)


def _start_rest(options: Options, core: Core, host: str) -> DrainMiddleware:
    prometheus = config.read(options.monitoring_config_file, "MonitoringConfig").prometheus_config
    path = (prometheus.path or "/monitoring/prometheus/metrics") if prometheus.enable else ""
    threads = options.rest_api_num_threads or 4 * (os.cpu_count() or 1)
    app = DrainMiddleware(RestApi(options, core, path))
    if options.rest_api_port not in (0, options.port):
        try:
            listener = sockets.tcp(host, options.rest_api_port)
        except OSError as error:
            log.error("Failed to start HTTP Server at localhost:%d: %s", options.rest_api_port, error)
            return app
        server = waitress.create_server(app, sockets=[listener], threads=threads, connection_limit=1000)
        Thread(target=server.run, name="rest", daemon=True).start()
    return app
