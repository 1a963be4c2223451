"""Observation: metrics, log line and spans of each request, from the facts in its context.

A request adds to plain numbers, which a timer writes to prometheus_client's files once a second: each write
costs several microseconds. Only the request's duration is observed at once.
"""

import asyncio
import os
import platform
import sys
import time
from collections import Counter as Multiset
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, Response, g, request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from digit_core.errors import OverloadedError
from digit_core.results import Digit, Prediction
from digit_serving.gateway.logging import json_line, pretty_line
from digit_serving.gateway.request import PROBE_ROUTES, RequestContext
from digit_serving.gateway.settings import Settings

if TYPE_CHECKING:
    # Needs the extra otel.
    from digit_serving.gateway.tracing import RequestTracer

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Bucket bounds of the histograms.
_REQUEST_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
# Decoding a normalised image takes some 30 µs.
_STAGE_SECONDS = (0.00002, 0.00005, 0.0001, 0.0002, *_REQUEST_SECONDS)
_CALL_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_READING_DIGITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
_OVERLOAD_ROUTES = {"/v1/predict", "/v1/read"}
_MAX_LABELS = 100
"""Labels of a model with series of their own. The others share the label value `other`."""
_CONFIDENCES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1)
_WRITE_SECONDS = 1.0
"""Time between two writes of the counters."""
_SAMPLED_REQUESTS = 50
"""Sampling: requests of a process between two writes whose stages and confidences are observed. Ratios and
quantiles need no more; a service with fewer requests gets them all."""


def observe_requests(
    app: Flask, settings: Settings, metrics: "Metrics", tracer: "RequestTracer | None"
) -> None:
    """Count, log and trace each request of the app; `g.context` is its RequestContext.

    The request ID is the caller's X-Request-ID if valid, otherwise a new one. The answer, the call to the
    model server and the log line carry this ID. Probes and metrics are not counted, logged or traced.
    """
    request_log = RequestLog(settings)

    def begin() -> None:
        # The object behind the proxy, which looks it up at each access.
        received: Request = request._get_current_object()  # type: ignore[attr-defined]
        g.context = context = RequestContext.from_request(received, settings.deadline)
        if tracer and context.route not in PROBE_ROUTES:
            tracer.start_request(context, received)

    def end(response: Response) -> Response:
        context: RequestContext = g.context
        context.ended_at = time.monotonic()
        context.status = response.status_code
        response.headers.add("X-Request-ID", context.request_id)
        response.headers.add("X-Content-Type-Options", "nosniff")
        if context.route not in PROBE_ROUTES:
            facts = Facts(context)
            metrics.count_request(facts)
            request_log.add(facts)
            if tracer:
                tracer.end_request(context, facts.outcome)
        return response

    app.before_request(begin)
    app.after_request(end)


class Facts:
    """Facts of a request that has ended, in the form in which metrics, log line and span need them.

    `images` has the numbers of images by their result: `answered`, a refusal, or the code of an error.
    `answers` are predictions that are no refusal, and digits of all readings. `queue_seconds` is the time in
    the admission queue and in batch queues, `model_server_seconds` that of calls; a call in flight counts up
    to the request's end. `outcome` has the facts that the log line and the span share.
    """

    def __init__(self, context: RequestContext) -> None:
        self.context = context
        self.model = context.requested.name
        self.seconds = context.ended_at - context.arrived_at
        self.images = Multiset(
            [*(result.refusal or "answered" for result in context.results), *context.image_errors]
        )
        self.readings = context.readings
        self.answers: Sequence[Prediction | Digit] = [
            each for each in context.results if isinstance(each, Prediction) and not each.refusal
        ] or [digit for reading in self.readings for digit in reading.digits]
        self.queue_seconds = context.dequeued_at - context.arrived_at
        self.model_server_seconds = 0.0
        for wait in context.waits:
            call = wait.call
            self.queue_seconds += (call.started_at if call else context.ended_at) - wait.started_at
            if call:
                self.model_server_seconds += (call.ended_at or context.ended_at) - call.started_at
        self.outcome = self._outcome()

    def _outcome(self) -> dict[str, Any]:
        context = self.context
        outcome: dict[str, Any] = {}
        if context.model_version is not None:
            outcome |= {"model": self.model, "version": context.model_version}
        if context.results:
            outcome["images"] = len(context.results)
        outcome |= {result: count for result, count in self.images.items() if result != "answered"}
        if self.readings:
            # The count only: a number, such as a card's, may be confidential.
            outcome["digits"] = len(self.answers)
        return outcome


class Metrics:
    """The gateway's metrics, in a registry of their own.

    If PROMETHEUS_MULTIPROC_DIR is set, the exposition is the sum over the processes that share that folder.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = self._counter("requests", "Requests answered.", "route", "method", "status")
        self._request_seconds = self._histogram(
            "request_duration_seconds",
            "Time from a request's arrival to its response.",
            _REQUEST_SECONDS,
            "route",
        )
        self._stage_seconds = self._histogram(
            "stage_duration_seconds",
            "Time in stages of sampled requests: decode, normalise, find, queue (admission and batch).",
            _STAGE_SECONDS,
            "stage",
        )
        self._model_seconds = self._histogram(
            "model_duration_seconds",
            "Time of successful calls to the model server.",
            _REQUEST_SECONDS,
            "model",
            "version",
        )
        self._model_failures = self._counter(
            "model_failures",
            "Failed calls to the model server, by the version asked: default, canary, named by the request, "
            "or pinned to the version that answered the request's first call.",
            "model",
            "asked",
            "code",
        )
        self._call_images = self._histogram(
            "call_images",
            "Images, and crops of digits, per call to the model server; requests may share a call.",
            _CALL_IMAGES,
        )
        self._predictions = self._counter("predictions", "Labels answered.", "model", "label", "version")
        self._reading_digits = self._histogram("reading_digits", "Digits per image read.", _READING_DIGITS)
        self._confidence = self._histogram(
            "confidence",
            "Probability of the predicted label, of a sample of requests.",
            _CONFIDENCES,
            "model",
            "version",
        )
        self._key_requests = self._counter(
            "key_requests", "Requests answered, by the name of the API key.", "key", "status"
        )
        self._images = self._counter(
            "images",
            "Images, by their result: answered, a refusal, or the code of an error.",
            "model",
            "version",
            "result",
        )
        self._add_rare_metrics()
        self._add_build_info()
        self._amounts: Multiset[Any] = Multiset()
        """Amounts that are not written yet, by child of a counter."""
        self._sampled = 0
        """Requests since the last write whose stages and confidences were observed."""

    def count_request(self, facts: Facts) -> None:
        """Count a completed request, in the event loop."""
        if not self._amounts:
            asyncio.get_running_loop().call_later(_WRITE_SECONDS, self.write)
        context, model, amounts = facts.context, facts.model, self._amounts
        version = context.model_version
        amounts[self._requests(context.route, context.method, context.status)] += 1
        self._request_seconds(context.route).observe(facts.seconds)
        if context.problem_code == OverloadedError.code:
            amounts[self._overload.labels(context.route)] += 1
        if context.key:
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
        # A shared call is counted once.
        for call in (wait.call for wait in context.waits if wait.call and wait.is_leader):
            self._call_images().observe(call.images)
            if version is not None and call.ended_at is not None:
                self._model_seconds(model, version).observe(call.ended_at - call.started_at)
        if self._sampled < _SAMPLED_REQUESTS:
            self._sampled += 1
            self._observe_sample(facts)

    def write(self) -> None:
        """Write the counters, in the event loop: once a second, and before the process exits."""
        for child, amount in self._amounts.items():
            child.inc(amount)
        self._amounts.clear()
        self._sampled = 0

    def count_overload(self, path: str) -> None:
        """Count a request that admission control refused, before its route is known."""
        self._overload.labels(path if path in _OVERLOAD_ROUTES else "unmatched").inc()

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus's text format; those of other processes are up to a second old."""
        self.write()
        registry = self._registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    def _observe_sample(self, facts: Facts) -> None:
        context = facts.context
        stages = {
            "decode": context.decode_seconds,
            "normalise": context.normalise_seconds,
            "find": context.find_seconds,
            "queue": facts.queue_seconds if context.waits else 0,
        }
        for stage, seconds in stages.items():
            if seconds:
                self._stage_seconds(stage).observe(seconds)
        for answer in facts.answers:
            self._confidence(facts.model, context.model_version).observe(answer.confidence)

    def _add_rare_metrics(self) -> None:
        """Add metrics that others write at once, not in each request."""

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"digits_{name}", text, labels, registry=self._registry)

        self._overload = counter(
            "overload", "Requests refused for overload, by the gateway or the model servers.", "route"
        )
        self.rate_limit_store_failures = counter(
            "rate_limit_store_failures", "Failed calls to the store of rate limits."
        )
        self.worker_exits = counter("worker_exits", "Worker processes that ended and were replaced.")
        self.feedback = counter(
            "feedback", "Model inputs that got a label, by its agreement.", "model", "version", "agrees"
        )
        self.feedback_dropped = counter(
            "feedback_dropped", "Model inputs that were not kept for feedback, or sampled and not stored."
        )
        self.feedback_sampled = counter(
            "feedback_sampled", "Model inputs of unsure answers that were stored.", "model", "version"
        )
        self.shadow_predictions = counter(
            "shadow_predictions",
            "Model inputs that the shadow version answered as well, by its agreement.",
            "model",
            "version",
            "shadow_version",
            "agrees",
        )
        self.shadow_dropped = counter(
            "shadow_dropped", "Calls of the shadow's share that were not compared.", "model", "reason"
        )
        self.shadow_seconds = Histogram(
            "digits_shadow_duration_seconds",
            "Time of successful calls to the shadow version.",
            ("model", "version"),
            buckets=_REQUEST_SECONDS,
            registry=self._registry,
        )

    def _add_build_info(self) -> None:
        build = Gauge(
            "digits_build_info",
            "Always 1; the labels are the versions of the gateway and of Python.",
            ["version", "python"],
            # All workers set the same value; the default mode would add a label per process.
            multiprocess_mode="max",
            registry=self._registry,
        )
        build.labels(version("digits"), platform.python_version()).set(1)

    def _counter(self, name: str, text: str, *labels: str) -> Any:
        return _cached_labels(Counter(f"digits_{name}", text, labels, registry=self._registry))

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Any:
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


class RequestLog:
    """Log of completed requests, at level INFO.

    The requests of an event-loop iteration share one write, and skip logging.LogRecord: both are dear.
    """

    def __init__(self, settings: Settings) -> None:
        self._format = json_line if settings.log_format == "json" else pretty_line
        self._is_on = settings.log_level in ("debug", "info")
        self._lines: list[str] = []

    def add(self, facts: Facts) -> None:
        """Log a request, in the event loop."""
        if self._is_on:
            if not self._lines:
                asyncio.get_running_loop().call_soon(self._write)
            context = facts.context
            message = f"{context.method} {context.route} {context.status}"
            self._lines.append(self._format(time.time(), "info", message, _fields(facts)))

    def _write(self) -> None:
        text = "\n".join([*self._lines, ""])
        self._lines.clear()
        # A closed standard error, such as a pipe's, fails no request.
        with suppress(OSError, ValueError):
            sys.stderr.write(text)


def _fields(facts: Facts) -> dict[str, Any]:
    context = facts.context
    fields: dict[str, Any] = {
        "request_id": context.request_id,
        "method": context.method,
        "route": context.route,
        "status": context.status,
        "client": context.client,
        "ms": _milliseconds(facts.seconds),
    }
    if context.key:
        fields["key"] = context.key
    if context.decode_seconds:
        fields["decode_ms"] = _milliseconds(context.decode_seconds)
    if context.normalise_seconds:
        fields["normalise_ms"] = _milliseconds(context.normalise_seconds)
    if context.find_seconds:
        fields["find_ms"] = _milliseconds(context.find_seconds)
    if context.waits:
        fields["queue_ms"] = _milliseconds(facts.queue_seconds)
        fields["model_server_ms"] = _milliseconds(facts.model_server_seconds)
    fields |= facts.outcome
    if len(context.results) == 1 and isinstance(prediction := context.results[0], Prediction):
        fields["label"] = prediction.label
        fields["confidence"] = round(prediction.confidence, 4)
    if context.problem_code:
        fields["code"] = context.problem_code
    if context.span:
        fields["trace_id"] = format(context.span.get_span_context().trace_id, "032x")
    return fields


def _milliseconds(seconds: float) -> float:
    return int(seconds * 1e6) / 1000
