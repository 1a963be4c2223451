"""Observation: metrics, log line and spans of each request, from the facts in its context.

A request adds to plain numbers, which a timer writes to prometheus_client's files once a second: each write
costs several microseconds. Only the request's duration is observed at once.
"""

import asyncio
import logging
import os
import platform
import sys
import time
from collections import Counter as Multiset
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import orjson
from flask import Flask, Request, Response, g, request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from digit_core.errors import OverloadedError
from digit_core.results import Digit, Prediction, Reading
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
_VERSION = ("model", "version")
_OVERLOAD_ROUTES = {"/v1/predict", "/v1/read"}
_MAX_LABELS = 100
"""Labels of a model with series of their own. The others share the label value `other`."""
_CONFIDENCES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1)
_WRITE_SECONDS = 1.0
"""Time between two writes of the counters."""
_FIELDS_IN_MESSAGE = {"method", "route", "status"}
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
        results = [result.refusal or "answered" for result in context.results] + context.image_errors
        self.images = {result: results.count(result) for result in dict.fromkeys(results)}
        self.readings = [result for result in context.results if isinstance(result, Reading)]
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
        self.stages = {
            "decode": context.decode_seconds,
            "normalise": context.normalise_seconds,
            "find": context.find_seconds,
            "queue": self.queue_seconds if context.waits else 0.0,
        }
        self.outcome: dict[str, Any] = {}
        if context.model_version is not None:
            self.outcome |= {"model": self.model, "version": context.model_version}
        if context.results:
            self.outcome["images"] = len(context.results)
        self.outcome |= {result: count for result, count in self.images.items() if result != "answered"}
        if self.readings:
            # The count only: a number, such as a card's, may be confidential.
            self.outcome["digits"] = len(self.answers)


class Metrics:
    """The gateway's metrics, in a registry of their own; a metric is a function from label values to a child.

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
            *_VERSION,
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
            *_VERSION,
        )
        self._key_requests = self._counter(
            "key_requests", "Requests answered, by the name of the API key.", "key", "status"
        )
        self._images = self._counter(
            "images",
            "Images, by their result: answered, a refusal, or the code of an error.",
            *_VERSION,
            "result",
        )
        self._overload = self._counter(
            "overload", "Requests refused for overload, by the gateway or the model servers.", "route"
        )
        self.rate_limit_store_failures = self._counter(
            "rate_limit_store_failures", "Failed calls to the store of rate limits."
        )
        self.worker_exits = self._counter("worker_exits", "Worker processes that ended and were replaced.")
        self.feedback = self._counter(
            "feedback", "Model inputs that got a label, by its agreement.", *_VERSION, "agrees"
        )
        self.feedback_dropped = self._counter(
            "feedback_dropped", "Model inputs that were not kept for feedback, or sampled and not stored."
        )
        self.feedback_sampled = self._counter(
            "feedback_sampled", "Model inputs of unsure answers that were stored.", *_VERSION
        )
        self.shadow_predictions = self._counter(
            "shadow_predictions",
            "Model inputs that the shadow version answered as well, by its agreement.",
            *_VERSION,
            "shadow_version",
            "agrees",
        )
        self.shadow_dropped = self._counter(
            "shadow_dropped", "Calls of the shadow's share that were not compared.", "model", "reason"
        )
        self.shadow_seconds = self._histogram(
            "shadow_duration_seconds",
            "Time of successful calls to the shadow version.",
            _REQUEST_SECONDS,
            *_VERSION,
        )
        build = Gauge(
            "digits_build_info",
            "Always 1; the labels are the versions of the gateway and of Python.",
            ["version", "python"],
            # All workers set the same value; the default mode would add a label per process.
            multiprocess_mode="max",
            registry=self._registry,
        )
        build.labels(version("digits"), platform.python_version()).set(1)
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
            amounts[self._overload(context.route)] += 1
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
            for stage, seconds in facts.stages.items():
                if seconds:
                    self._stage_seconds(stage).observe(seconds)
            for answer in facts.answers:
                self._confidence(model, version).observe(answer.confidence)

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
    for stage, seconds in facts.stages.items():
        if seconds:
            fields[f"{stage}_ms"] = _milliseconds(seconds)
    if context.waits:
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


def log_config(settings: Settings) -> dict[str, Any]:
    """Return the configuration for logging.config.dictConfig: JSON or readable text on standard error.

    The level of gunicorn's logger, whose handlers uvicorn also uses, is ERROR: at lower levels each malformed
    request and each start and end of a process would be logged.
    """
    formatter = _JsonFormatter if settings.log_format == "json" else _PrettyFormatter
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"fields": {"()": formatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "fields"}},
        "loggers": {"gunicorn.error": {"level": "ERROR", "handlers": ["stderr"], "propagate": False}},
        "root": {"level": settings.log_level.upper(), "handlers": ["stderr"]},
    }


def json_line(seconds: float, level: str, message: str, fields: Mapping[str, Any]) -> str:
    """Return one JSON object; `seconds` is Unix time."""
    moment = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    document = {"time": moment, "level": level, "message": message, **fields}
    return orjson.dumps(document, default=str).decode()


def pretty_line(seconds: float, level: str, message: str, fields: Mapping[str, Any]) -> str:
    """Return readable text, with the fields as name=value.

    Unprintable characters are escaped: a caller's text could begin a line, or control a terminal.
    """
    moment = time.strftime("%H:%M:%S", time.localtime(seconds))
    pairs = (f"{name}={value}" for name, value in fields.items() if name not in _FIELDS_IN_MESSAGE)
    line = " ".join((moment, level.upper(), message, *pairs))
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in line
    )


class _JsonFormatter(logging.Formatter):
    """One JSON object per line, with the record's `fields` and its traceback as members."""

    def format(self, record: logging.LogRecord) -> str:
        fields = dict(getattr(record, "fields", {}))
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json_line(record.created, record.levelname.lower(), record.getMessage(), fields)


class _PrettyFormatter(logging.Formatter):
    """Readable line with the record's `fields` as name=value, followed by a traceback if there is one."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - overrides logging.Formatter
        return pretty_line(record.created, record.levelname, record.message, getattr(record, "fields", {}))
