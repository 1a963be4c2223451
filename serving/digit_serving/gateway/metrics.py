"""The gateway's metrics for Prometheus."""

import os
import platform
from collections import Counter as Tally
from functools import cache
from importlib.metadata import version
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from digit_serving.gateway.context import RequestContext

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
# A normalised image is decoded in some 30 µs.
_SHORT = (0.00002, 0.00005, 0.0001, 0.0002, *_SECONDS)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_CONFIDENCES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1)


class Metrics:
    """Metrics of one process, in a registry of their own.

    Where PROMETHEUS_MULTIPROC_DIR is set, those of all processes of one gateway are added up.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = self._counter("requests", "Requests answered.", "route", "method", "status")
        self._latency = self._histogram(
            "request_duration_seconds", "Time from a request to its answer.", _SECONDS, "route"
        )
        self._stages = self._histogram(
            "stage_duration_seconds",
            "Time of a prediction's stages: decode, normalise, and queue, the wait for turn and call.",
            _SHORT,
            "stage",
        )
        self._model_latency = self._histogram(
            "model_duration_seconds", "Time of the calls that a version answered.", _SECONDS, "version"
        )
        self._failures = self._counter(
            "model_failures",
            "Calls without a prediction, by who was asked: default, canary, or one that the request named.",
            "asked",
            "code",
        )
        self._batches = self._histogram(
            "call_images", "Images in a call to the model server, which requests may share.", _IMAGES
        )
        self._predictions = self._counter("predictions", "Images read.", "digit", "version")
        self._confidence = self._histogram(
            "confidence", "Probability of the digit that was read.", _CONFIDENCES, "version"
        )
        self._keys = self._counter("key_requests", "Requests answered, by the caller's key.", "key", "status")
        self._refused = self._counter("images_refused", "Requests refused for an image.", "code")
        self._overload = self._counter(
            "overload", "Requests refused unseen, since too many waited or they themselves had for too long."
        )
        self._tell_build()

    def count(self, context: RequestContext) -> None:
        """Count a request that has ended."""
        self._requests(context.route, context.method, context.status).inc()
        self._latency(context.route).observe(context.duration)
        if context.decode:
            self._stages("decode").observe(context.decode)
        if context.normalise:
            self._stages("normalise").observe(context.normalise)
        if context.waits:
            self._count_calls(context)
        if context.predictions:
            self._count_predictions(context)
        if context.key:
            self._keys(context.key, context.status).inc()
        if context.refused:
            self._refused(context.refused).inc()

    def count_overload(self) -> None:
        """Count a request that was refused unseen."""
        self._overload().inc()

    def _count_calls(self, context: RequestContext) -> None:
        self._stages("queue").observe(context.queue)
        for wait in context.waits:
            if wait.call and wait.leads:
                self._batches().observe(wait.call.images)
        for failure in context.failures:
            self._failures(*failure).inc()

    def _count_predictions(self, context: RequestContext) -> None:
        version = context.predictions[0].model_version
        self._model_latency(version).observe(context.model_server)
        for digit, count in Tally(prediction.digit for prediction in context.predictions).items():
            self._predictions(digit, version).inc(count)
        observe = self._confidence(version).observe
        for prediction in context.predictions:
            observe(prediction.confidence)

    def text(self) -> bytes:
        """Every metric in Prometheus's text format."""
        registry = self._registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    def _counter(self, name: str, text: str, *labels: str) -> Any:
        return _children(Counter(f"digits_{name}", text, labels, registry=self._registry))

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Any:
        return _children(Histogram(f"digits_{name}", text, labels, buckets=buckets, registry=self._registry))

    def _tell_build(self) -> None:
        build = Gauge(
            "digits_build_info",
            "1, with the versions of what runs.",
            ["version", "python"],
            # Every worker says the same.
            multiprocess_mode="max",
            registry=self._registry,
        )
        build.labels(version("digit-serving"), platform.python_version()).set(1)


def _children(metric: Counter | Histogram) -> Any:
    """The metric's child by label values, cached: `labels` checks and formats them anew each time."""
    return cache(lambda *labels: metric.labels(*labels) if labels else metric)
