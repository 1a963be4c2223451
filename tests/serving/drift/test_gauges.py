"""Gauges of a run; tests/e2e/test_drift.py has a real Pushgateway."""

from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import generate_latest

from digit_serving.drift.analysis import Answers, Drift, FeedbackWindows, compare
from digit_serving.drift.gauges import push_gauges, registry
from digit_serving.feedback.records import Agreement
from tests.processes import free_port

TIME = datetime(2026, 11, 29, tzinfo=UTC)


def run(answers: float, labels: int) -> Drift:
    """Return a run with so many answers, two labels and one bin of confidence, and labels of two versions."""
    current = Answers({"0": answers / 4, "1": answers * 3 / 4}, {"0–100%": answers}, {"1": answers})
    reference = Answers({"0": 500, "1": 500}, {"0–100%": 1000}, {"1": 1000})
    feedback = FeedbackWindows(
        [Agreement("digits", 2, labels, labels, labels // 2)],
        [Agreement("digits", version, labels // 2, labels // 2, labels // 4) for version in (1, 2)],
    )
    models = compare({"digits": current}, {"digits": reference})
    return Drift(TIME, timedelta(days=7), timedelta(days=28), models, feedback)


def samples(drift: Drift) -> dict[str, float]:
    lines = generate_latest(registry(drift)).decode().splitlines()
    return {name: float(value) for name, value in (line.split() for line in lines if line[0] != "#")}


def test_registry_has_index_agreement_and_time() -> None:
    assert samples(run(answers=200, labels=100)) == {
        'digits_drift_psi{model="digits",of="label"}': pytest.approx(0.2746531),
        'digits_drift_psi{model="digits",of="confidence"}': 0,
        'digits_feedback_agreement{model="digits",version="2"}': 0.5,
        'digits_feedback_reference_agreement{model="digits"}': 0.5,
        "digits_drift_last_run_timestamp_seconds": TIME.timestamp(),
    }


def test_registry_of_few_answers_and_labels_has_the_time_only() -> None:
    assert samples(run(answers=99, labels=99)).keys() == {"digits_drift_last_run_timestamp_seconds"}


@pytest.mark.parametrize(
    "url", ["http://user:secret@127.0.0.1:{port}", "http://user:secret@[", "http://user:secret@127.0.0.1"]
)
def test_push_gauges_to_no_pushgateway_hides_the_password(url: str) -> None:
    with pytest.raises(OSError, match="can't push the gauges: ") as failed:
        push_gauges(run(answers=0, labels=0), url.format(port=free_port()))
    assert "secret" not in str(failed.value)
