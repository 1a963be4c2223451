"""What the server counts, under TensorFlow Serving's names and as its Prometheus exporter writes them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram

from digit_serving.model_server.errors import ServingError

_BUCKETS = [10 * 1.8**power for power in range(33)]  # microseconds
_NAMES = {
    "load_attempt_count": (Counter, "cc:saved_model:", ["model_path", "status"]),
    "request_count": (Counter, "serving:", ["model_name", "status"]),
    "model_warmup_latency": (Histogram, "serving:", ["model_path", "status"]),
    "request_latency": (Histogram, "serving:", ["model_name", "API", "entrypoint"]),
    "runtime_latency": (Histogram, "serving:", ["model_name", "API", "runtime"]),
}


class Metrics:
    """One server's counters and its histograms of microseconds, by the names above."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._by_name: dict[str, Any] = {}
        for name, (kind, scope, labels) in _NAMES.items():
            buckets = {"buckets": _BUCKETS} if kind is Histogram else {}
            full_name = f":tensorflow:{scope}{name}"
            self._by_name[name] = kind(full_name, "", labels, registry=self._registry, **buckets)

    @contextmanager
    def timing(self, name: str, *labels: str) -> Iterator[None]:
        """Observes how long the block takes, if it succeeds."""
        started = time.perf_counter()
        yield
        self._by_name[name].labels(*labels).observe((time.perf_counter() - started) * 1e6)

    @contextmanager
    def counting(self, name: str, label: str, success: str = "OK", failure: str = "") -> Iterator[None]:
        """Counts the block under its status, or the word given for it."""
        status = success
        try:
            yield
        except ServingError as error:
            status = failure or error.code.name
            raise
        finally:
            self._by_name[name].labels(label, status).inc()

    @contextmanager
    def request(self, model: str, api: str, entrypoint: str) -> Iterator[None]:
        with self.counting("request_count", model), self.timing("request_latency", model, api, entrypoint):
            yield

    def page(self) -> str:
        lines = []
        for family in self._registry.collect():
            lines.append(f"# TYPE {family.name} {family.type}")
            for sample in family.samples:
                labels = ",".join(f'{key}="{_escaped(key, value)}"' for key, value in sample.labels.items())
                if not sample.name.endswith("_created"):
                    lines.append(f"{sample.name.removesuffix('_total')}{{{labels}}} {sample.value:.15g}")
        return "\n".join(lines) + "\n"


def _escaped(key: str, value: str) -> str:
    short = f"{float(value):g}" if key == "le" and value != "+Inf" else value
    return short.replace("\\", "\\\\").replace('"', '\\"')
