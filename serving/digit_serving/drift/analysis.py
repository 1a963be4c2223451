"""Comparison of two windows of answers: population stability index (PSI), verdicts and tables. No I/O."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Literal

import numpy as np

from digit_serving.feedback.records import Agreement
from digit_serving.text_tables import format_table

MODERATE = 0.1
SHIFTED = 0.25
"""PSI above which a distribution has changed moderately, and above which it has shifted.

Thresholds of credit scoring: N. Siddiqi, Credit Risk Scorecards, Wiley, 2006.
"""

MIN_SHARE = 0.0001
"""Smallest share of a bin. A share of 0, such as that of a new label in the reference, has no logarithm."""

MIN_ANSWERS_PER_BIN = 100
"""Answers in each window, per bin, below which there is no verdict.

The PSI of two samples of n and m answers from one distribution over k bins averages (k - 1)(1/n + 1/m)
(B. Yurdakul, Statistical Properties of Population Stability Index, 2018): here at most 0.02.
"""

MIN_LABELS = 100
"""Labels below which an agreement has no gauge: its 95% interval may be 20 points wide."""

_MIN_VERSION_CHANGE = 0.1
_LINE_WIDTH = 90

Quantity = Literal["label", "confidence", "version"]
Verdict = Literal["stable", "moderate", "shifted", "too few answers"]

FEEDBACK_BIAS = (
    "Users report wrong answers more often than right ones: compare the rows with each other, "
    "not with the accuracy on test data."
)


@dataclass(frozen=True)
class Answers:
    """Numbers of a model's answers in a window by label, by bin of confidence and by version.

    Prometheus estimates them, so they are not whole.
    """

    labels: Mapping[str, float]
    confidences: Mapping[str, float]
    versions: Mapping[str, float]


NO_ANSWERS = Answers({}, {}, {})


@dataclass(frozen=True)
class Bin:
    """Shares, 0..1, of the current and of the reference window's answers that fall into a bin."""

    name: str
    current: float
    reference: float

    @property
    def change(self) -> float:
        """Difference of the shares, -1..1."""
        return self.current - self.reference


@dataclass(frozen=True)
class Comparison:
    """Distribution of a quantity in two windows: numbers of answers by bin."""

    of: Quantity
    current: Mapping[str, float]
    reference: Mapping[str, float]

    @cached_property
    def current_total(self) -> float:
        """Number of answers in the current window."""
        return sum(self.current.values())

    @cached_property
    def reference_total(self) -> float:
        """Number of answers in the reference window."""
        return sum(self.reference.values())

    @cached_property
    def bins(self) -> list[Bin]:
        """Bins with answers in either window, in the order of the reference; new ones come last."""
        return [
            Bin(
                name,
                self.current.get(name, 0) / (self.current_total or 1),
                self.reference.get(name, 0) / (self.reference_total or 1),
            )
            for name in {**self.reference, **self.current}
            if self.current.get(name) or self.reference.get(name)
        ]

    @cached_property
    def psi(self) -> float | None:
        """Population stability index, the sum of (c - r) ln(c / r) over the bins' shares c and r.

        None if a window has too few answers for a verdict.
        """
        fewest = min(self.current_total, self.reference_total)
        if not fewest or fewest < MIN_ANSWERS_PER_BIN * len(self.bins):
            return None
        current = np.maximum([each.current for each in self.bins], MIN_SHARE)
        reference = np.maximum([each.reference for each in self.bins], MIN_SHARE)
        return float(((current - reference) * np.log(current / reference)).sum())

    @property
    def verdict(self) -> Verdict:
        """Meaning of the index."""
        if self.psi is None:
            return "too few answers"
        if self.psi > SHIFTED:
            return "shifted"
        return "moderate" if self.psi > MODERATE else "stable"

    @property
    def largest_change(self) -> Bin | None:
        """Bin whose share has changed most; None unless both windows have answers."""
        if not (self.current_total and self.reference_total):
            return None
        return max(self.bins, key=lambda each: abs(each.change))


@dataclass(frozen=True)
class ModelDrift:
    """Comparisons of a model's answers in two windows. `versions` explains the others, without a verdict."""

    model: str
    labels: Comparison
    confidences: Comparison
    versions: Comparison

    @property
    def new_version(self) -> Bin | None:
        """Version whose share of the answers has grown by 10 points or more, which may explain a shift."""
        changed = self.versions.largest_change
        if changed is None or abs(changed.change) < _MIN_VERSION_CHANGE:
            return None
        return max(self.versions.bins, key=lambda each: each.change)


@dataclass(frozen=True)
class FeedbackWindows:
    """Agreement of users' feedback with the answers of two windows, by version: those that have labels."""

    current: Sequence[Agreement]
    reference: Sequence[Agreement]

    @property
    def is_empty(self) -> bool:
        """True if neither window has a label."""
        return not (self.current or self.reference)


@dataclass(frozen=True)
class Drift:
    """Result of a run, its time, and the lengths of its windows; None where the source was not asked."""

    time: datetime
    since: timedelta
    reference: timedelta
    models: Sequence[ModelDrift] | None
    feedback: FeedbackWindows | None

    @property
    def current_name(self) -> str:
        """Current window in words."""
        return f"the last {format_duration(self.since)}"

    @property
    def reference_name(self) -> str:
        """Reference window in words."""
        return f"the {format_duration(self.reference)} before"


def compare(current: Mapping[str, Answers], reference: Mapping[str, Answers]) -> list[ModelDrift]:
    """Return the comparisons of each model that answered in either window, by name."""
    return [
        _compare(model, current.get(model, NO_ANSWERS), reference.get(model, NO_ANSWERS))
        for model in sorted({*current, *reference})
    ]


def format_drift(drift: Drift) -> str:
    """Return the tables for a terminal."""
    parts = []
    if drift.models is not None:
        parts.append(f"Answers of {drift.current_name}, compared with {drift.reference_name}")
        parts.append(_format_models(drift.models) if drift.models else "None in either window.")
        parts += [
            f"Version {new.name} of {model.model} gave {new.current:.0%} of the answers, and before "
            f"{new.reference:.0%}: a shift may be the version's."
            for model in drift.models
            if (new := model.new_version)
        ]
    if drift.feedback is not None:
        parts.append(f"Agreement with users' feedback\n{textwrap.fill(FEEDBACK_BIAS, _LINE_WIDTH)}")
        parts.append(
            "None in either window." if drift.feedback.is_empty else _format_feedback(drift, drift.feedback)
        )
    return "\n\n".join(parts)


def format_duration(duration: timedelta) -> str:
    """Return the duration in words: in days, or if it is no number of days in hours."""
    hours = round(duration.total_seconds() / 3600)
    number, unit = (hours, "hour") if hours % 24 else (hours // 24, "day")
    return f"{number} {unit}{'s' * (number != 1)}"


def format_share(share: float) -> str:
    """Return a share, 0..1, in per cent, such as 4.2%."""
    return f"{share:.1%}"


def _compare(model: str, current: Answers, reference: Answers) -> ModelDrift:
    return ModelDrift(
        model,
        Comparison("label", current.labels, reference.labels),
        Comparison("confidence", current.confidences, reference.confidences),
        Comparison("version", current.versions, reference.versions),
    )


def _format_models(models: Sequence[ModelDrift]) -> str:
    headings = ("MODEL", "OF", "ANSWERS", "REFERENCE", "PSI", "VERDICT", "LARGEST CHANGE")
    rows = [
        (
            model.model,
            comparison.of,
            f"{comparison.current_total:,.0f}",
            f"{comparison.reference_total:,.0f}",
            "–" if comparison.psi is None else f"{comparison.psi:.3f}",
            comparison.verdict,
            _format_change(comparison.largest_change),
        )
        for model in models
        for comparison in (model.labels, model.confidences)
    ]
    return format_table(headings, rows, numbers={"ANSWERS", "REFERENCE", "PSI"})


def _format_change(changed: Bin | None) -> str:
    if changed is None:
        return "–"
    return f"{changed.name}: {format_share(changed.reference)} → {format_share(changed.current)}"


def _format_feedback(drift: Drift, feedback: FeedbackWindows) -> str:
    headings = ("MODEL", "VERSION", "ANSWERS OF", "LABELS", "AGREEING", "95% INTERVAL")
    rows = [
        (
            version.model,
            str(version.version),
            window,
            f"{version.labelled:,}",
            format_share(version.share),
            " to ".join(map(format_share, version.interval)),
        )
        for window, versions in (
            (drift.current_name, feedback.current),
            (drift.reference_name, feedback.reference),
        )
        for version in versions
    ]
    return format_table(headings, rows, numbers={"VERSION", "LABELS", "AGREEING"})
