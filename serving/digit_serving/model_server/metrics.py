"""Prometheus metrics with TensorFlow Serving's names and labels."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from digit_serving.errors import ServingError

_BUCKETS = [10 * 1.8**power for power in range(33)]
"""Upper bounds in microseconds, those of TensorFlow Serving."""


class Metrics:
    """Counters and histograms of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        # The name is not the gateway's digits_build_info, whose absence tells alerts that a gateway is down.
        versions = {"version": version("digits"), "tensorflow": version("tensorflow-serving-api")}
        info = Gauge("digits_model_server_build_info", "", versions, registry=self._registry)
        info.labels(**versions).set(1)
        self._loads = self._counter("cc:saved_model:load_attempt_count", "model_path", "status")
        self._requests = self._counter("serving:request_count", "model_name", "status")
        self.request_latency = self._histogram("serving:request_latency", "model_name", "API", "entrypoint")
        self.runtime_latency = self._histogram("serving:runtime_latency", "model_name", "API", "runtime")

    @contextmanager
    def load(self, path: str) -> Iterator[None]:
        """Count the attempt, in the block, to load the version in this directory."""
        status = "fail"
        try:
            yield
            status = "success"
        finally:
            self._loads.labels(path, status).inc()

    @contextmanager
    def request(self, model: str, api: str | None, entrypoint: str) -> Iterator[None]:
        """Count the request in the block; with an `api`, observe its latency if it succeeds.

        The status is the code of a ServingError, and UNKNOWN for other exceptions.
        """
        started, status = time.perf_counter(), "UNKNOWN"
        try:
            yield
            status = "OK"
            if api is not None:
                observe(self.request_latency, started, model, api, entrypoint)
        except ServingError as error:
            status = error.code
            raise
        finally:
            self._requests.labels(model, status).inc()

    def page(self) -> str:
        """Return all metrics in Prometheus's text format."""
        # prometheus_client appends `_total` to the name of a counter; TensorFlow Serving's names lack it.
        text = generate_latest(self._registry).decode()
        return re.sub(r"^((?:# \w+ )?:tensorflow:[\w:]+)_total\b", r"\1", text, flags=re.MULTILINE)

    def _counter(self, name: str, *labels: str) -> Counter:
        return Counter(f":tensorflow:{name}", "", labels, registry=self._registry)

    def _histogram(self, name: str, *labels: str) -> Histogram:
        return Histogram(f":tensorflow:{name}", "", labels, buckets=_BUCKETS, registry=self._registry)


def observe(latency: Histogram, started: float, *labels: str) -> None:
    """Observe the time since `started`, a time of time.perf_counter()."""
    latency.labels(*labels).observe((time.perf_counter() - started) * 1e6)
