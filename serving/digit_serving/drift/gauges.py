"""Gauges of a run, pushed to a Pushgateway: Prometheus scrapes no command that has ended."""

from collections import Counter
from http.client import HTTPException, InvalidURL

from prometheus_client import CollectorRegistry, Gauge, push_to_gateway

from digit_serving.drift.analysis import MIN_LABELS, Drift

JOB = "digits-drift"
_TIMEOUT = 30.0


def push_gauges(drift: Drift, url: str) -> None:
    """Replace the gauges of earlier runs in the Pushgateway at `url`. Raise OSError with a message."""
    try:
        push_to_gateway(url, job=JOB, registry=registry(drift), timeout=_TIMEOUT)
    except InvalidURL:
        # Without its message, which takes a password for a port and quotes it.
        raise OSError("can't push the gauges: the URL must be http://HOST:PORT, without a user") from None
    except (OSError, ValueError, HTTPException) as error:
        raise OSError(f"can't push the gauges: {error}") from error


def registry(drift: Drift) -> CollectorRegistry:
    """Return the gauges. A figure of too few answers or labels has none, so that no alert fires for it."""
    gauges = CollectorRegistry()
    psi = Gauge(
        "digits_drift_psi",
        "Population stability index of the answers against the reference window.",
        ["model", "of"],
        registry=gauges,
    )
    agreement = Gauge(
        "digits_feedback_agreement",
        "Share of users' feedback that agrees with the answers, by version.",
        ["model", "version"],
        registry=gauges,
    )
    reference = Gauge(
        "digits_feedback_reference_agreement",
        "Share of users' feedback that agrees with the answers of the reference window.",
        ["model"],
        registry=gauges,
    )
    last_run = Gauge("digits_drift_last_run_timestamp_seconds", "Time of the last run.", registry=gauges)
    for model in drift.models or ():
        for comparison in (model.labels, model.confidences):
            if comparison.psi is not None:
                psi.labels(model.model, comparison.of).set(comparison.psi)
    if drift.feedback is not None:
        for version in drift.feedback.current:
            if version.labelled >= MIN_LABELS:
                agreement.labels(version.model, str(version.version)).set(version.share)
        labelled: Counter[str] = Counter()
        agreeing: Counter[str] = Counter()
        for version in drift.feedback.reference:
            labelled[version.model] += version.labelled
            agreeing[version.model] += version.agreeing
        for name, count in labelled.items():
            if count >= MIN_LABELS:
                reference.labels(name).set(agreeing[name] / count)
    last_run.set(drift.time.timestamp())
    return gauges
