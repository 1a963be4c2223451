"""Counters and histograms with TensorFlow Serving's names, in the text format of its Prometheus exporter."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Histogram

from digit_serving.model_server.errors import ServingError

_BUCKETS = [10 * 1.8**power for power in range(33)]  # microseconds


class Metrics:
    """One server's counters and histograms, by the last part of their names."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        counters = {"cc:saved_model:load_attempt_count": "model_path", "serving:request_count": "model_name"}
        self._counters = {
            name.rpartition(":")[2]: Counter(f":tensorflow:{name}", "", [label, "status"], registry=registry)
            for name, label in counters.items()
        }
        histograms = {
            "model_warmup_latency": "model_path status",
            "request_latency": "model_name API entrypoint",
        }
        histograms["runtime_latency"] = "model_name API runtime"
        self._histograms = {
            name: Histogram(
                f":tensorflow:serving:{name}", "", labels.split(), registry=registry, buckets=_BUCKETS
            )
            for name, labels in histograms.items()
        }

        # Caches of labelled metrics: the library validates labels on each call of `labels`.
        self._counter = lru_cache(lambda name, *labels: self._counters[name].labels(*labels))
        self._histogram = lru_cache(lambda name, *labels: self._histograms[name].labels(*labels))

    def observe(self, name: str, started: float, *labels: str) -> None:
        """Observe the time since `started`, a time.perf_counter()."""
        self._histogram(name, *labels).observe((time.perf_counter() - started) * 1e6)

    @contextmanager
    def counting(self, name: str, label: str, success: str = "OK", failure: str = "") -> Iterator[None]:
        """Count the block under the status that it ends with, or under the word given for that."""
        status = success
        try:
            yield
        except ServingError as error:
            status = failure or error.code.name
            raise
        finally:
            self._counter(name, label, status).inc()

    @contextmanager
    def request(self, model: str, api: str, entrypoint: str) -> Iterator[None]:
        started = time.perf_counter()
        with self.counting("request_count", model):
            yield
            self.observe("request_latency", started, model, api, entrypoint)

    def page(self) -> str:
        lines = []
        for family in self._registry.collect():
            lines.append(f"# TYPE {family.name} {family.type}\n")
            for name, labels, value, *_ in family.samples:
                pairs = ",".join(f'{key}="{_escaped(key, label)}"' for key, label in labels.items())
                if not name.endswith("_created"):
                    lines.append(f"{name.removesuffix('_total')}{{{pairs}}} {value:.15g}\n")
        return "".join(lines)


def _escaped(key: str, label: str) -> str:
    short = f"{float(label):g}" if key == "le" and label != "+Inf" else label
    return short.replace("\\", "\\\\").replace('"', '\\"')
