"""What the server counts, under TensorFlow Serving's names and as its Prometheus exporter writes them."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from prometheus_client import CollectorRegistry, Counter, Histogram

from digit_serving.model_server.errors import ServingError


class Metrics:
    """Each method but the last counts and times the block that it opens."""

    def __init__(self) -> None:
        registry, buckets = CollectorRegistry(), [10 * 1.8**power for power in range(33)]  # microseconds
        serving, saved_model, path = ":tensorflow:serving:", ":tensorflow:cc:saved_model:", ["model_path"]
        call = ["model_name", "API"]
        self._registry = registry
        self._loads = Counter(saved_model + "load_attempt_count", "", [*path, "status"], registry=registry)
        self._load_latency = Counter(saved_model + "load_latency", "", path, registry=registry)
        self._requests = Counter(serving + "request_count", "", ["model_name", "status"], registry=registry)
        self._warmup_latency, self._request_latency, self._runtime_latency = (
            Histogram(serving + name, "", labels, buckets=buckets, registry=registry)
            for name, labels in [
                ("model_warmup_latency", [*path, "status"]),
                ("request_latency", [*call, "entrypoint"]),
                ("runtime_latency", [*call, "runtime"]),
            ]
        )

    def load(self, path: str) -> AbstractContextManager[None]:
        def record(status: str, micros: float) -> None:
            self._loads.labels(path, "success" if status == "OK" else "fail").inc()
            self._load_latency.labels(path).inc(micros)

        return _observed(record)

    def warm_up(self, path: str) -> AbstractContextManager[None]:
        return _observed(lambda status, micros: self._warmup_latency.labels(path, status).observe(micros))

    def runtime(self, model: str) -> AbstractContextManager[None]:
        return _observed(
            lambda _, micros: self._runtime_latency.labels(model, "Predict", "TF1").observe(micros)
        )

    def request(self, model: str, api: str, entrypoint: str) -> AbstractContextManager[None]:
        def record(status: str, micros: float) -> None:
            self._requests.labels(model, status).inc()
            if status == "OK":
                self._request_latency.labels(model, api, entrypoint).observe(micros)

        return _observed(record)

    def page(self) -> str:
        lines = []
        for family in self._registry.collect():
            lines.append(f"# TYPE {family.name} {family.type}")
            for sample in family.samples:
                labels = ",".join(f'{key}="{_escaped(key, value)}"' for key, value in sample.labels.items())
                if not sample.name.endswith("_created"):
                    lines.append(f"{sample.name.removesuffix('_total')}{{{labels}}} {sample.value:.15g}")
        return "\n".join(lines) + "\n"


@contextmanager
def _observed(record: Callable[[str, float], object]) -> Iterator[None]:
    """Calls `record` with the block's status and its duration in microseconds."""
    started, status = time.perf_counter(), "OK"
    try:
        yield
    except ServingError as error:
        status = error.code.name
        raise
    finally:
        record(status, (time.perf_counter() - started) * 1e6)


def _escaped(key: str, value: str) -> str:
    short = f"{float(value):g}" if key == "le" and value != "+Inf" else value
    return short.replace("\\", "\\\\").replace('"', '\\"')
