"""PSI, verdicts and tables, without I/O."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from digit_serving.drift.analysis import (
    Answers,
    Comparison,
    Drift,
    FeedbackWindows,
    compare,
    format_drift,
    format_duration,
)
from digit_serving.feedback.records import Agreement

WEEK = timedelta(days=7)


def of_labels(current: Mapping[str, float], reference: Mapping[str, float]) -> Comparison:
    return Comparison("label", current, reference)


def psi(current: Mapping[str, float], reference: Mapping[str, float]) -> float:
    value = of_labels(current, reference).psi
    assert value is not None
    return value


def drift(
    current: Mapping[str, Answers] | None = None,
    reference: Mapping[str, Answers] | None = None,
    feedback: FeedbackWindows | None = None,
) -> Drift:
    """Return a run that asked for answers if `current` is given."""
    models = None if current is None else compare(current, reference or {})
    return Drift(datetime(2026, 11, 29, tzinfo=UTC), WEEK, 4 * WEEK, models, feedback)


def test_psi_of_equal_shares_is_zero() -> None:
    assert psi({"0": 300, "1": 700}, {"0": 3000, "1": 7000}) == pytest.approx(0)


def test_psi_is_the_sum_over_the_bins() -> None:
    # 0.1 ln(0.3 / 0.2) - 0.1 ln(0.7 / 0.8)
    assert psi({"0": 300, "1": 700}, {"0": 200, "1": 800}) == pytest.approx(0.0405465 + 0.0133531, abs=1e-6)


def test_psi_of_a_new_label_takes_a_share_of_a_ten_thousandth() -> None:
    # 0.0499 ln(0.05 / 0.0001), and 0.05 ln(1 / 0.95) of the other one
    new, other = 0.0499 * 6.2146081, 0.05 * 0.0512933
    assert psi({"0": 950, "1": 50}, {"0": 1000}) == pytest.approx(new + other, abs=1e-6)
    assert psi({"0": 1000}, {"0": 950, "1": 50}) == pytest.approx(new + other, abs=1e-6)


def test_psi_ignores_bins_without_answers_in_both_windows() -> None:
    comparison = of_labels({"0": 100, "1": 0}, {"0": 100, "1": 0})
    assert [found.name for found in comparison.bins] == ["0"]
    assert comparison.psi == 0


@pytest.mark.parametrize(
    ("current", "verdict"),
    [(500, "stable"), (649, "stable"), (660, "moderate"), (735, "moderate"), (745, "shifted")],
)
def test_verdict_follows_from_the_thresholds(current: int, verdict: str) -> None:
    comparison = of_labels({"0": current, "1": 1000 - current}, {"0": 5000, "1": 5000})
    assert comparison.verdict == verdict


@pytest.mark.parametrize(("current", "reference"), [(199, 5000), (5000, 199), (0, 5000), (5000, 0), (0, 0)])
def test_verdict_of_less_than_100_answers_a_bin_is_too_few(current: int, reference: int) -> None:
    comparison = of_labels(
        {"0": current / 4, "1": current * 3 / 4}, {"0": reference * 3 / 4, "1": reference / 4}
    )
    assert (comparison.psi, comparison.verdict) == (None, "too few answers")


def test_compare_has_models_of_either_window_by_name() -> None:
    answers = Answers({"a": 1}, {"0–100%": 1}, {"1": 1})
    new, old = compare({"new": answers}, {"old": answers})
    assert (new.model, new.labels.current_total, new.labels.reference_total) == ("new", 1, 0)
    assert (old.model, old.labels.current_total, old.labels.reference_total) == ("old", 0, 1)


@pytest.mark.parametrize(("share", "name"), [(0.05, None), (0.2, "2")])
def test_new_version_is_one_with_ten_points_more(share: float, name: str | None) -> None:
    current = Answers({}, {}, {"1": 1000 * (1 - share), "2": 1000 * share})
    (model,) = compare({"digits": current}, {"digits": Answers({}, {}, {"1": 400})})
    assert (model.new_version and model.new_version.name) == name


def test_format_drift_has_a_line_for_labels_and_confidences() -> None:
    current = Answers({"0": 2000.4, "1": 8000}, {"0–50%": 6, "50–100%": 4}, {"1": 2000, "2": 8000})
    reference = Answers({"0": 20_000, "1": 20_000}, {"50–100%": 10}, {"1": 40_000})
    assert format_drift(drift({"digits": current}, {"digits": reference})).splitlines() == [
        "Answers of the last 7 days, compared with the 28 days before",
        "",
        "MODEL   OF          ANSWERS  REFERENCE    PSI  VERDICT          LARGEST CHANGE",
        "digits  label        10,000     40,000  0.416  shifted          0: 50.0% → 20.0%",
        "digits  confidence       10         10      –  too few answers  50–100%: 100.0% → 40.0%",
        "",
        "Version 2 of digits gave 80% of the answers, and before 0%: a shift may be the version's.",
    ]


def test_format_drift_of_a_model_without_reference_has_no_change() -> None:
    answers = Answers({"0": 500}, {"0–100%": 500}, {"1": 500})
    (line, _) = format_drift(drift({"digits": answers})).splitlines()[3:]
    assert line.split() == ["digits", "label", "500", "0", "–", "too", "few", "answers", "–"]


def test_format_drift_of_feedback_has_interval_and_bias() -> None:
    feedback = FeedbackWindows([Agreement("digits", 2, 100, 100, 80)], [Agreement("digits", 1, 10, 10, 10)])
    assert format_drift(drift(feedback=feedback)).splitlines() == [
        "Agreement with users' feedback",
        "Users report wrong answers more often than right ones: compare the rows with each other,",
        "not with the accuracy on test data.",
        "",
        "MODEL   VERSION  ANSWERS OF          LABELS  AGREEING  95% INTERVAL",
        "digits        2  the last 7 days        100     80.0%  71.1% to 86.7%",
        "digits        1  the 28 days before      10    100.0%  72.2% to 100.0%",
    ]


def test_format_drift_without_answers_and_feedback_says_so() -> None:
    text = format_drift(drift({}, {}, FeedbackWindows([], [])))
    assert text.count("None in either window.") == 2


@pytest.mark.parametrize(("hours", "text"), [(24, "1 day"), (168, "7 days"), (1, "1 hour"), (36, "36 hours")])
def test_format_duration_is_in_days_or_hours(hours: int, text: str) -> None:
    assert format_duration(timedelta(hours=hours)) == text
