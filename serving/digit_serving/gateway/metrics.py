"""What the gateway counts, for Prometheus."""

import asyncio
import os
import platform
from bisect import bisect_left
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from digit_serving import greenlets
from digit_serving.gateway.record import Record

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
# A framed image is decoded in some 30 µs.
_SHORT = (0.00002, 0.00005, 0.0001, 0.0002, *_SECONDS)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_WRITE_SECONDS = 0.1
_CONFIDENCES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1)


class _Counts(Tally[tuple[Any, ...]]):
    """What a counter does not hold yet, by labels."""

    def __init__(self, metric: Counter) -> None:
        super().__init__()
        self._metric = metric

    def write(self) -> None:
        for labels, count in self.items():
            _labelled(self._metric, labels).inc(count)
        self.clear()


class _Amounts(defaultdict[tuple[Any, ...], list[float]]):
    """What a histogram does not hold yet, by labels."""

    def __init__(self, metric: "_Histogram") -> None:
        super().__init__(list)
        self._metric = metric

    def write(self) -> None:
        for labels, amounts in self.items():
            _labelled(self._metric, labels).observe_all(amounts)
        self.clear()


def _labelled(metric: Any, labels: tuple[Any, ...]) -> Any:
    return metric.labels(*labels) if labels else metric


class _Histogram(Histogram):
    def observe_all(self, amounts: Sequence[float]) -> None:
        """The same as to observe one after the other, which takes ten times as long where most are alike."""
        for place, count in Tally(bisect_left(self._upper_bounds, amount) for amount in amounts).items():
            self._buckets[place].inc(count)
        self._sum.inc(sum(amounts))


class Metrics:
    """The counts of one app, in a registry of their own.

    For one event loop. They are written ten times a second: one by one that takes a tenth of what a small
    request takes. Where PROMETHEUS_MULTIPROC_DIR is set, those of all processes of one gateway are added up.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._unwritten: list[_Counts | _Amounts] = []
        self._is_due = False
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

    def count(self, record: Record) -> None:
        """Count a request that has ended."""
        self._requests[record.route, record.method, record.status] += 1
        self._latency[record.route,].append(record.duration)
        if record.decode:
            self._stages["decode",].append(record.decode)
        if record.normalise:
            self._stages["normalise",].append(record.normalise)
        if record.waits:
            self._count_calls(record)
        if record.predictions:
            self._count_predictions(record)
        if record.key:
            self._keys[record.key, record.status] += 1
        if record.refused:
            self._refused[record.refused,] += 1
        self._write_soon()

    def count_overload(self) -> None:
        """Count a request that was refused unseen."""
        self._overload[()] += 1
        self._write_soon()

    def _count_calls(self, record: Record) -> None:
        self._stages["queue",].append(record.queue)
        for wait in record.waits:
            if wait.call and wait.leads:
                self._batches[()].append(wait.call.images)
        for failure in record.failures:
            self._failures[failure] += 1

    def _count_predictions(self, record: Record) -> None:
        version = record.predictions[0].model_version
        self._model_latency[version,].append(record.model_server)
        confidences = self._confidence[version,]
        for prediction in record.predictions:
            self._predictions[prediction.digit, version] += 1
            confidences.append(prediction.confidence)

    def _write_soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_later(_WRITE_SECONDS, self._write)

    def _write(self) -> None:
        self._is_due = False
        for each in self._unwritten:
            each.write()

    def text(self) -> bytes:
        """Every count in Prometheus's text format, for a greenlet, which may have to wait."""
        self._write()
        registry = self._registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            # Until the others have written what they counted before they were asked for it.
            greenlets.sleep(2 * _WRITE_SECONDS)
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    def _counter(self, name: str, text: str, *labels: str) -> _Counts:
        counts = _Counts(Counter(f"digits_{name}", text, labels, registry=self._registry))
        self._unwritten.append(counts)
        return counts

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> _Amounts:
        metric = _Histogram(f"digits_{name}", text, labels, buckets=buckets, registry=self._registry)
        self._unwritten.append(amounts := _Amounts(metric))
        return amounts

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
