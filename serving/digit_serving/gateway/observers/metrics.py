"""Metrics of requests, in Prometheus's format.

A request adds to plain numbers, which a timer writes to prometheus_client's files once a second: each write
costs several microseconds. Only the request's duration is observed at once.
"""

import asyncio
import os
import platform
from collections import Counter as Multiset
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from digit_core.errors import OverloadedError
from digit_core.results import Digit, Prediction
from digit_serving.gateway.observers import Observer
from digit_serving.gateway.request import Call, Facts

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Bucket bounds of the histograms.
REQUEST_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
# Decoding a normalised image takes some 30 µs.
_STAGE_SECONDS = (0.00002, 0.00005, 0.0001, 0.0002, *REQUEST_SECONDS)
_CALL_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_READING_DIGITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
_VERSION = ("model", "version")
_OVERLOAD_ROUTES = {"/v1/predict", "/v1/read"}
_MAX_LABELS = 100
"""Labels of a model with series of their own. The others share the label value `other`."""
_CONFIDENCES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1)
_WRITE_SECONDS = 1.0
"""Time between two writes of the counters."""
_SAMPLED_REQUESTS = 50
"""Sampling: requests of a process between two writes whose stages and confidences are observed. Ratios and
quantiles need no more; a service with fewer requests gets them all."""


class Metrics(Observer):
    """The gateway's metrics, in a registry of their own; a metric is a function from label values to a child.

    If PROMETHEUS_MULTIPROC_DIR is set, the exposition is the sum over the processes that share that folder.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = self.counter("requests", "Requests answered.", "route", "method", "status")
        self._request_seconds = self.histogram(
            "request_duration_seconds",
            "Time from a request's arrival to its response.",
            REQUEST_SECONDS,
            "route",
        )
        self._stage_seconds = self.histogram(
            "stage_duration_seconds",
            "Time in stages of sampled requests: decode, normalise, find, queue (admission and batch).",
            _STAGE_SECONDS,
            "stage",
        )
        self._model_seconds = self.histogram(
            "model_duration_seconds",
            "Time of successful calls to the model server.",
            REQUEST_SECONDS,
            *_VERSION,
        )
        self._model_failures = self.counter(
            "model_failures",
            "Failed calls to the model server, by the version asked: default, named by the request, chosen "
            "by a feature, or pinned to the version that answered the request's first call.",
            "model",
            "asked",
            "code",
        )
        self._call_images = self.histogram(
            "call_images",
            "Images, and crops of digits, per call to the model server; requests may share a call.",
            _CALL_IMAGES,
        )
        self._predictions = self.counter("predictions", "Labels answered.", "model", "label", "version")
        self._reading_digits = self.histogram("reading_digits", "Digits per image read.", _READING_DIGITS)
        self._confidence = self.histogram(
            "confidence",
            "Probability of the predicted label, of a sample of requests.",
            _CONFIDENCES,
            *_VERSION,
        )
        self._key_requests = self.counter(
            *("key_requests", 'Requests answered, by the name of the API key, "" for an unknown key.'),
            *("key", "status"),
        )
        self._images = self.counter(
            "images",
            "Images, by their result: answered, a refusal, or the code of an error.",
            *_VERSION,
            "result",
        )
        self._overload = self.counter(
            "overload", "Requests refused for overload, by the gateway or the model servers.", "route"
        )
        self.rate_limit_store_failures = self.counter(
            "rate_limit_store_failures", "Failed calls to the store of rate limits."
        )
        self.worker_exits = self.counter("worker_exits", "Worker processes that ended and were replaced.")
        about = "Always 1; the labels are the versions of the gateway and of Python."
        build = self.gauge("build_info", about, "version", "python")
        build.labels(version("digits"), platform.python_version()).set(1)
        self._amounts: Multiset[Any] = Multiset()
        """Amounts that are not written yet, by child of a counter."""
        self._sampled = 0
        """Requests since the last write whose stages and confidences were observed."""

    def ended(self, facts: Facts) -> None:
        """Count a completed request."""
        if not self._amounts:
            asyncio.get_running_loop().call_later(_WRITE_SECONDS, self.write)
        context, model, amounts = facts.context, facts.model, self._amounts
        version = context.model_version
        amounts[self._requests(context.rule, context.method, context.status)] += 1
        self._request_seconds(context.rule).observe(facts.seconds)
        if context.problem_code == OverloadedError.code:
            amounts[self._overload(context.rule)] += 1
        if context.key or context.has_unknown_key:
            amounts[self._key_requests(context.key, context.status)] += 1
        for failure in context.failures:
            amounts[self._model_failures(model, *failure)] += 1
        for result, count in facts.images.items():
            amounts[self._images(model, version or "", result)] += count
        for answer in facts.answers:
            for label in _labels(answer):
                amounts[self._predictions(model, label, version)] += 1
        for reading in facts.readings:
            self._reading_digits().observe(len(reading.digits))
        for wait in context.waits:
            # The batch leader alone counts a shared call.
            if wait.call and wait.is_leader:
                self._observe_call(wait.call, model, version)
        if self._sampled < _SAMPLED_REQUESTS:
            self._sampled += 1
            self._observe_sample(facts)

    def _observe_call(self, call: Call, model: str, version: int | None) -> None:
        self._call_images().observe(call.images)
        if version is not None and call.ended_at is not None:
            self._model_seconds(model, version).observe(call.ended_at - call.started_at)

    def _observe_sample(self, facts: Facts) -> None:
        for stage, seconds in facts.stages.items():
            if seconds:
                self._stage_seconds(stage).observe(seconds)
        for answer in facts.answers:
            self._confidence(facts.model, facts.context.model_version).observe(answer.confidence)

    def write(self) -> None:
        """Write the counters, in the event loop: once a second, and before the process exits."""
        for child, amount in self._amounts.items():
            child.inc(amount)
        self._amounts.clear()
        self._sampled = 0

    def count_overload(self, path: str) -> None:
        """Count a request that admission control refused, before its route is known."""
        self._overload(path if path in _OVERLOAD_ROUTES else "unmatched").inc()

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus's text format; those of other processes are up to a second old."""
        self.write()
        registry = self._registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        """Return a gauge: of several processes, the exposition has the value that was set last."""
        # The default mode would add a label for each process.
        return Gauge(f"digits_{name}", text, labels, multiprocess_mode="mostrecent", registry=self._registry)

    def counter(self, name: str, text: str, *labels: str) -> Any:
        """Return a counter, as a function from label values."""
        return _cached_labels(Counter(f"digits_{name}", text, labels, registry=self._registry))

    def histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Any:
        """Return a histogram, as a function from label values."""
        histogram = Histogram(f"digits_{name}", text, labels, buckets=buckets, registry=self._registry)
        return _cached_labels(histogram)


def _labels(answer: Prediction | Digit) -> Sequence[str]:
    """Return the label values of an answer, several of a multi-label model.

    There are at most `_MAX_LABELS` + 1 per model.
    """
    if isinstance(answer, Digit):
        return (str(answer.digit),)
    if answer.predicted_labels is None:
        return (answer.labels[answer.index] if answer.index < _MAX_LABELS else "other",)
    known = answer.labels[:_MAX_LABELS]
    return [label if label in known else "other" for label in answer.predicted_labels]


def _cached_labels(metric: Counter | Histogram) -> Any:
    """Return a cached `metric.labels`, which would validate and format its arguments on each call."""
    return cache(lambda *labels: metric.labels(*labels) if labels else metric)
