"""Reader of the gateways' counters in Prometheus, over its HTTP API."""

import math
from collections import defaultdict
from datetime import timedelta
from typing import Any

import httpx

from digit_serving.drift.analysis import Answers

_TIMEOUT = 120.0
"""Timeout of a query in seconds: Prometheus' own default is two minutes."""

# `increase` sees a counter's resets. A series counts from its second sample on, so the first 15 seconds of a
# gateway's label are lost.
_LABELS = "sum by (model, version, label) (increase(digits_predictions_total{range}))"
_CONFIDENCES = "sum by (model, le) (increase(digits_confidence_bucket{range}))"


class PrometheusError(Exception):
    """Prometheus could not be asked; the message says why."""


def read_answers(url: str, window: timedelta, ended: timedelta = timedelta(0)) -> dict[str, Answers]:
    """Return the answers of each model in the window that ended `ended` ago. Raise PrometheusError.

    All gateways count, also those that have stopped since. A window before the oldest data is shorter.
    """
    times = f"[{window.total_seconds():.0f}s]"
    # Prometheus refuses an offset of 0.
    if ended:
        times += f" offset {ended.total_seconds():.0f}s"
    counted = _query(url, _LABELS.format(range=times), {"model", "version", "label"})
    cumulated = _query(url, _CONFIDENCES.format(range=times), {"model", "le"})
    labels: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    versions: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    bounds: dict[str, dict[float, float]] = defaultdict(dict)
    for series, value in counted:
        labels[series["model"]][series["label"]] += value
        versions[series["model"]][series["version"]] += value
    for series, value in cumulated:
        bounds[series["model"]][float(series["le"])] = value
    return {
        model: Answers(
            dict(sorted(labels[model].items())),
            _by_bin(bounds[model]),
            dict(sorted(versions[model].items(), key=lambda item: int(item[0]))),
        )
        for model in labels
    }


def _query(url: str, query: str, names: set[str]) -> list[tuple[dict[str, str], float]]:
    """Return the labels and the value of each series that the query finds. Raise PrometheusError.

    `names` are the labels that every series must have.

    Messages leave out the URL, which may contain a password.
    """
    address = f"{url.rstrip('/')}/api/v1/query"
    try:
        response = httpx.get(address, params={"query": query}, timeout=_TIMEOUT)
        answer: Any = response.json()
        if answer["status"] != "success":
            raise PrometheusError(f"Prometheus refuses the query: {answer['error']}")
        found = [(series["metric"], float(series["value"][1])) for series in answer["data"]["result"]]
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise PrometheusError(f"can't reach Prometheus: {error}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise PrometheusError(
            f"the URL is not Prometheus': its answer has HTTP status {response.status_code}"
        ) from error
    # A label of the target, such as Istio's `version`, displaces the metric's without `honor_labels`.
    is_countable = all(
        math.isfinite(value) and metric.get("version", "0").isdecimal() and names <= metric.keys()
        for metric, value in found
    )
    if not is_countable:
        raise PrometheusError(
            f"Prometheus has other labels than the gateways' {', '.join(sorted(names))}, or no numbers; "
            "scrape the gateways with honor_labels: true"
        )
    return found


def _by_bin(cumulated: dict[float, float]) -> dict[str, float]:
    """Return the number of answers in each bin of a histogram, given by its upper bounds.

    The bucket to infinity replaces the one to 1, above which a float32 may be by a rounding error.
    """
    upper = sorted(bound for bound in cumulated if bound < 1)
    counts = [cumulated[bound] for bound in upper] + [max(cumulated.values(), default=0)]
    edges = [0.0, *upper, 1.0]
    return {
        f"{100 * low:g}–{100 * high:g}%": max(0.0, count - below)
        for low, high, below, count in zip(edges, edges[1:], [0.0, *counts], counts, strict=False)
    }
