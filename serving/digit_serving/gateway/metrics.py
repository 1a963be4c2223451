"""What the gateway counts, for Prometheus."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from digit_client.predictions import Prediction

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
# A caller may send any word as method.
_METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}


class Metrics:
    """The counts of one app, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "digits_requests", "Requests answered.", ["route", "method", "status"], registry=registry
        )
        self._latency = Histogram(
            "digits_request_duration_seconds",
            "Time from a request to its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._model_latency = Histogram(
            "digits_model_duration_seconds",
            "Time of the calls that a version answered.",
            ["version"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._failures = Counter(
            "digits_model_failures",
            "Calls without a prediction, by who was asked: default, canary, or one that the request named.",
            ["asked", "code"],
            registry=registry,
        )
        self._predictions = Counter(
            "digits_predictions", "Images read.", ["digit", "version"], registry=registry
        )

    def count_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answer. `route` is the rule that matched, so that paths don't multiply the series."""
        method = method if method in _METHODS else "other"
        self._requests.labels(route, method, status).inc()
        self._latency.labels(route).observe(seconds)

    def count_failure(self, asked: str, code: str) -> None:
        """Count a call to the model server that gave no prediction."""
        self._failures.labels(asked, code).inc()

    def count_predictions(self, predictions: Sequence[Prediction], seconds: float) -> None:
        """Count what was read by one call, one prediction at the least."""
        self._model_latency.labels(predictions[0].model_version).observe(seconds)
        for prediction in predictions:
            self._predictions.labels(prediction.digit, prediction.model_version).inc()

    def text(self) -> bytes:
        """Every count in Prometheus's text format."""
        return generate_latest(self._registry)
