"""Prometheus metrics with TensorFlow Serving's names and labels."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from digit_serving.model_server.errors import ServingError

_BUCKETS = [10 * 1.8**power for power in range(33)]
"""Upper bounds in microseconds, those of TensorFlow Serving."""

_COUNTERS = {
    "cc:saved_model:load_attempt_count": ("model_path", "status"),
    "serving:model_warmup_records_read": ("model_path",),
    "serving:request_count": ("model_name", "status"),
}
_HISTOGRAMS = {
    "serving:model_warmup_latency": ("model_path", "status"),
    "serving:request_latency": ("model_name", "API", "entrypoint"),
    "serving:runtime_latency": ("model_name", "API", "runtime"),
}


class Metrics:
    """Counters and histograms of one server. Methods take the last part of a metric's name."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._counters = {
            _short(name): Counter(f":tensorflow:{name}", "", labels, registry=self._registry)
            for name, labels in _COUNTERS.items()
        }
        self._histograms = {
            _short(name): Histogram(
                f":tensorflow:{name}", "", labels, buckets=_BUCKETS, registry=self._registry
            )
            for name, labels in _HISTOGRAMS.items()
        }

    def add(self, name: str, amount: int, *labels: str) -> None:
        """Increase the counter."""
        self._counters[name].labels(*labels).inc(amount)

    def first_count(self, path: str) -> int:
        """Return the count under the first labels in alphabetical order, as ReloadConfig reads a metric.

        `path` is TensorFlow's name of the metric, such as `/tensorflow/serving/request_count`. A counter
        without counts, another kind of metric or an unknown one has 0.
        """
        name = path.replace("/", ":")
        families = (family for family in self._registry.collect() if family.name == name)
        samples = (sample for family in families for sample in family.samples)
        counts = {tuple(s.labels.values()): s.value for s in samples if s.name == f"{name}_total"}
        return int(counts[min(counts)]) if counts else 0

    def observe(self, name: str, started: float, *labels: str) -> None:
        """Observe the time since `started`, a time of time.perf_counter()."""
        self._histograms[name].labels(*labels).observe((time.perf_counter() - started) * 1e6)

    @contextmanager
    def count(self, name: str, label: str, success: str = "OK", failure: str = "") -> Iterator[None]:
        """Count the block with the status `success`.

        If the block raises, the status is `failure`. If `failure` is empty, the status is the code of a
        ServingError, and UNKNOWN for other exceptions.
        """
        status = failure or "UNKNOWN"
        try:
            yield
            status = success
        except ServingError as error:
            status = failure or error.code.name
            raise
        finally:
            self._counters[name].labels(label, status).inc()

    @contextmanager
    def request(self, model: str, api: str, entrypoint: str) -> Iterator[None]:
        """Count the request in the block, and observe its latency if it succeeds."""
        started = time.perf_counter()
        with self.count("request_count", model):
            yield
            self.observe("request_latency", started, model, api, entrypoint)

    def page(self) -> str:
        """Return all metrics in Prometheus's text format."""
        # prometheus_client appends `_total` to the name of a counter; TensorFlow Serving's names lack it.
        text = generate_latest(self._registry).decode()
        return re.sub(r"^((?:# \w+ )?:tensorflow:[\w:]+)_total\b", r"\1", text, flags=re.MULTILINE)


def _short(name: str) -> str:
    return name.rpartition(":")[2]
