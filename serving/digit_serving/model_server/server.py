"""The whole server: its models, its ports, and an end in good order."""

import gc
import logging
import os
import signal
import sys
import time
from threading import Thread
from typing import Any, NoReturn

import waitress

from digit_serving import allocator, signals, sockets
from digit_serving.model_server import config, grpc_service
from digit_serving.model_server.batching import Batcher
from digit_serving.model_server.core import Core
from digit_serving.model_server.errors import ServingError
from digit_serving.model_server.flags import Options
from digit_serving.model_server.rest import RestApi

log = logging.getLogger(__name__)
_GRACE = 5.0  # seconds for the requests under way when the server is told to stop


def run(options: Options, host: str) -> NoReturn:
    """Serves until SIGTERM or SIGINT, then exits with 0; with 255, as the original, where it can't start.

    Without a `host` it listens on every address.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    for name in ("tensorflow", "waitress.queue"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit())
    signals.wake_main_thread()
    allocator.keep_freed()
    # TensorFlow's own objects stay: to look for garbage among them takes a sixth of a second.
    gc.freeze()
    code = 0
    try:
        _serve(options, host)
    except SystemExit:
        log.info("Stopped")
    except ServingError as error:
        log.error("Failed to start server. Error: %s", error)
        code = 255
    os._exit(code)  # no thread that is still at work holds the process back


def _serve(options: Options, host: str) -> None:
    parameters = config.batching(options)
    core = Core(options, Batcher(parameters) if parameters is not None else None)
    core.reload(config.models(options))
    if options.model_config_file and options.model_config_file_poll_wait_seconds > 0:
        Thread(target=_poll, args=(options, core), daemon=True).start()
    grpc_server, rest_server = grpc_service.start(options, core, host), _start_rest(options, core, host)
    log.info("Running gRPC ModelServer at port %d, REST at port %d", options.port, options.rest_api_port)
    try:
        signal.pause()
    finally:
        grpc_server.stop(_GRACE)
        if rest_server is not None:
            _drain(rest_server)
        grpc_server.join()


def _poll(options: Options, core: Core) -> None:
    while True:
        time.sleep(options.model_config_file_poll_wait_seconds)
        try:
            core.reload(config.models(options))
        except ServingError as error:
            log.error("Failed to reload %s: %s", options.model_config_file, error)


def _start_rest(options: Options, core: Core, host: str) -> Any:
    prometheus = config.read(options.monitoring_config_file, "MonitoringConfig").prometheus_config
    path = (prometheus.path or "/monitoring/prometheus/metrics") if prometheus.enable else ""
    threads = options.rest_api_num_threads or 4 * (os.cpu_count() or 1)
    if options.rest_api_port in (0, options.port):
        return None
    try:
        listener = sockets.tcp(host, options.rest_api_port)
    except OSError as error:
        log.error("Failed to start HTTP Server at localhost:%d: %s", options.rest_api_port, error)
        return None
    api = RestApi(options, core, path)
    server = waitress.create_server(api, sockets=[listener], threads=threads, connection_limit=1000)
    Thread(target=server.run, name="rest", daemon=True).start()
    return server


def _drain(rest_server: Any) -> None:
    rest_server.accepting = False
    rest_server.task_dispatcher.shutdown(cancel_pending=False, timeout=_GRACE)
    until, channels = time.monotonic() + 1, rest_server.active_channels
    while any(channel.total_outbufs_len for channel in list(channels.values())) and time.monotonic() < until:
        time.sleep(0.01)
