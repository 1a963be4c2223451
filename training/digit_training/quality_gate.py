"""Quality gate: the accuracies that a model must reach to be published.

The module imports no Keras, so that `digits train --if-needed` answers at once.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from digit_core.feedback.votes import HELD_OUT_PART
from digit_training.errors import NotPublishedError

if TYPE_CHECKING:
    from digit_training.evaluation import Accuracy, Evaluation

TEST = "the test set"
FEEDBACK = "the held-out feedback"
HARD_PICTURES = "the hard pictures"
"""Names of the pictures that judge a model."""

MIN_AGREEMENT = 0.5
"""Least share of labels that equal the served answers: below it, labels are more often wrong than answers."""

MIN_HELD_OUT = 20
"""Least number of held-out inputs whose accuracy can show a gain."""

MIN_ACCURACY = 0.85
"""Least accuracy of up to ten labels, unless the caller states one."""

MAX_CHANCE = 0.05
"""Probability of a difference by chance below which it counts."""

MAX_LOSS = 0.003
"""Non-inferiority margin: loss of accuracy, 0..1, that no caller notices.

Ten thousand test digits show smaller losses beyond chance: of a shorter fit, or of one from feedback.
"""

MAX_LABEL_LOSS = 0.01
"""The same margin for a single label."""

MIN_LOST = 3
"""Least number of a label's pictures that the served version answers correctly, to tell that it is lost."""

MAX_GAP_GROWTH, _DEVIATIONS = 0.05, 2.0
"""Largest growth of the gap between mean confidence and accuracy, and of its standard error."""

MAX_CALIBRATION_ERROR = 0.1
"""Calibration error, after the best temperature, above which a confidence that is too high is refused."""

_NAMED_LABELS = 4
"""Most exchanged labels in a message."""

_GROWTH = 1.05
"""Factor between the numbers of pictures that are tried, until the gain is beyond chance."""


@dataclass(frozen=True)
class Comparison:
    """Right answers [n] of a new model, and of the served version, if there is one, on the same pictures."""

    right: NDArray[np.bool_]
    served: NDArray[np.bool_] | None
    labels: NDArray[np.intp] | None = None
    """Index of each picture's label, [n]; None of a multi-label task."""
    confidence: NDArray[np.float64] | None = None
    """Confidence of the new model and of the served version, [2, n]; None if it is unknown."""

    def __len__(self) -> int:
        return len(self.right)

    @property
    def accuracy(self) -> float:
        """Accuracy of the new model, 0..1."""
        return float(self.right.mean())

    @property
    def served_accuracy(self) -> float | None:
        """Accuracy of the served version, 0..1."""
        return None if self.served is None else float(self.served.mean())

    @property
    def gained(self) -> int:
        """Number of pictures that the new model alone answers correctly."""
        return 0 if self.served is None else int((self.right & ~self.served).sum())

    @property
    def lost(self) -> int:
        """Number of pictures that the served version alone answers correctly."""
        return 0 if self.served is None else int((self.served & ~self.right).sum())

    @property
    def gain(self) -> float:
        """Accuracy of the new model minus that of the served version, -1..1."""
        return (self.gained - self.lost) / len(self)

    @property
    def chance_of_loss(self) -> float:
        """Probability that two equally good models differ by this loss or more (McNemar, 1947)."""
        return _binomial_tail(self.lost, self.gained + self.lost)

    @property
    def chance_of_gain(self) -> float:
        """Probability that two equally good models differ by this gain or more (McNemar, 1947)."""
        return _binomial_tail(self.gained, self.gained + self.lost)

    def worse_labels(self) -> Iterator[tuple[int, "Comparison"]]:
        """Yield the index of each label that loses more than MAX_LABEL_LOSS, beyond chance, and its pictures.

        The chance of one wrong alarm among all labels is MAX_CHANCE (Bonferroni's correction).
        """
        if self.served is None or self.labels is None:
            return
        count = len(np.unique(self.labels))
        for label in np.unique(self.labels[self.served & ~self.right]).tolist():
            rows = self.labels == label
            part = Comparison(self.right[rows], self.served[rows])
            if part.gain < -MAX_LABEL_LOSS and part.chance_of_loss < MAX_CHANCE / count:
                yield label, part

    def lost_labels(self) -> Iterator[tuple[int, int, int]]:
        """Yield each label that loses most of at least MIN_LOST pictures, beyond chance, and both numbers.

        By chance, a picture is lost as often as those of the other labels. Either one label alone is too
        unlikely among all labels (Bonferroni), or there are too many such labels together (Poisson).
        """
        if self.served is None or self.labels is None:
            return
        known = self.labels[self.served]
        right = np.bincount(known)
        lost = np.bincount(known, weights=~self.right[self.served]).astype(int)
        tested = np.flatnonzero(right >= MIN_LOST).tolist()
        pairs = [(label, int(lost[label]), int(right[label])) for label in tested]
        found = [(label, gone, count) for label, gone, count in pairs if 2 * gone > count]

        def chance(label: int, least: int) -> float:
            share = (lost.sum() - lost[label] + 1) / (right.sum() - right[label] + 2)
            return _binomial_tail(least, int(right[label]), float(share))

        expected = sum(chance(label, count // 2 + 1) for label, _, count in pairs) if found else 0.0
        fewer = sum(expected**each / math.factorial(each) for each in range(len(found)))
        are_too_many = 1 - math.exp(-expected) * fewer < MAX_CHANCE / 2
        for label, gone, count in found:
            if are_too_many or chance(label, gone) < MAX_CHANCE / 2 / len(pairs):
                yield label, gone, count

    def worse_gap(self) -> tuple[float, float] | None:
        """Return the gaps between mean confidence and accuracy of both models, if that of the new one is
        wider by more than MAX_GAP_GROWTH, beyond chance by the paired z-test; None if not.
        """
        if self.confidence is None or self.served is None:
            return None
        new, old = self.confidence - np.stack([self.right, self.served])
        growth = float(abs(new.mean()) - abs(old.mean()))
        error = float((new - old).std()) / math.sqrt(len(self))
        if growth > max(MAX_GAP_GROWTH, _DEVIATIONS * error):
            return float(new.mean()), float(old.mean())
        return None

    def missing_pictures(self) -> int:
        """Return how many more pictures would show the same gain, which is positive, beyond chance."""
        size = float(len(self))
        while True:
            part = size / len(self)
            gained, lost = round(self.gained * part), round(self.lost * part)
            if _binomial_tail(gained, gained + lost) < MAX_CHANCE:
                return math.ceil(size) - len(self)
            size *= _GROWTH


@dataclass(frozen=True)
class Comparisons:
    """Comparisons of a new model with the served version, by set, that of the test set first."""

    served: str | None
    """Path of the served version; None if there is none that can be compared."""
    of: dict[str, Comparison]

    def describe(self) -> dict[str, Any]:
        """Return the accuracies as JSON values for the model card."""
        return {"served": self.served} | {
            name: {
                "pictures": len(comparison),
                "accuracy": comparison.accuracy,
                "served_accuracy": comparison.served_accuracy,
            }
            for name, comparison in self.of.items()
        }


@dataclass(frozen=True, slots=True)
class QualityGate:
    """Accuracy, 0..1, required of a model; with `force`, every model passes."""

    min_accuracy: float | None = None
    """Required accuracy on the test set, or mean average precision of a multi-label task; None selects one
    that falls with the number of labels."""
    min_gain: float | None = None
    """Required gain in accuracy on the held-out feedback."""
    force: bool = False

    def minimum(self, labels: int) -> float:
        """Return the required accuracy of a task: from ten labels on, it falls with their logarithm."""
        if self.min_accuracy is not None:
            return self.min_accuracy
        return round(MIN_ACCURACY / max(1, math.log10(labels)), 4)

    def check_agreement(self, agreement: "Accuracy") -> None:
        """Raise NotPublishedError if most labels of the feedback contradict the served answers."""
        if agreement.correct < MIN_AGREEMENT * agreement.count:
            self._refuse(
                f"only {agreement.correct:,} of {agreement.count:,} labels agree with the served answers, so "
                "that labels are wrong, or only mistakes were labelled; look at them with digits feedback, "
                "leave out a caller (--without-caller) or learn from all (--force)"
            )

    def check_held_out(self, count: int) -> None:
        """Raise NotPublishedError if a gain is required and the held-out inputs are too few to show it."""
        if self.min_gain is not None and count < MIN_HELD_OUT:
            self._refuse(
                f"{count} held-out inputs are too few to show a gain, which takes {MIN_HELD_OUT}: "
                f"{_describe_missing(MIN_HELD_OUT - count)} (see --min-gain and --force)"
            )

    def require(self, reasons: Sequence[str]) -> None:
        """Raise NotPublishedError for the first reason, if there is one, unless the model is forced."""
        for reason in reasons:
            self._refuse(reason)

    def reasons(
        self,
        comparisons: Comparisons,
        labels: Sequence[str],
        evaluation: "Evaluation | None" = None,
        guesses: str = "",
    ) -> Iterator[str]:
        """Yield the reasons not to publish a model of these labels.

        A loss or a gain counts only if chance is an unlikely reason, a loss only above MAX_LOSS, that of a
        single label above MAX_LABEL_LOSS. `guesses` says what was tried and guessed about the network.
        """
        scores = evaluation.scores if evaluation else None
        if evaluation and evaluation.confused:
            called = "; ".join(
                f"{labels[each.answer]!r} is answered for {each.count} of {each.total} pictures of "
                f"{labels[each.label]!r}"
                for each in evaluation.confused[:_NAMED_LABELS]
            )
            yield f"labels are exchanged: {called}; correct their order (see --labels), or --force it"
        name = "mAP" if scores else "accuracy"
        figure = scores.mean_average_precision if scores else comparisons.of[TEST].accuracy
        if figure < (minimum := self.minimum(len(labels))):
            yield (
                f"the {name} {figure:.4f} is below the minimum of {minimum} for {len(labels):,} labels"
                f"{guesses} (see --min-accuracy and --force)"
            )
        calibration = evaluation.calibration if evaluation else None
        limit = max(MAX_CALIBRATION_ERROR, calibration.by_chance) if calibration else 0
        if calibration and calibration.is_overconfident and calibration.error > limit:
            yield (
                f"the calibration error {calibration.error:.4f} is above {limit:.2g} even at the best "
                f"temperature, {calibration.temperature:.2g}: the confidence is not the probability of a "
                "right answer; is the output what the card says (see --output, --force)?"
            )
        yield from self._losses(comparisons, labels)
        yield from self._missing_gain(comparisons)

    def _losses(self, comparisons: Comparisons, labels: Sequence[str]) -> Iterator[str]:
        describe = partial(_describe, served=comparisons.served)
        shown = [*map(repr, labels), "no label"]
        for pictures, judged in comparisons.of.items():
            for label, gone, count in judged.lost_labels():
                yield (
                    f"{gone} of {count} pictures of {shown[label]} in {pictures} are lost, which "
                    f"{comparisons.served} answers rightly: does the model still know it (see --force)?"
                )
            if gaps := judged.worse_gap():
                yield (
                    f"on {pictures} the mean confidence is {gaps[0]:+.2f} off the accuracy, that of "
                    f"{comparisons.served} {gaps[1]:+.2f}: calibrate the model (see --force)"
                )
            if judged.chance_of_loss < MAX_CHANCE and judged.gain < -MAX_LOSS:
                yield f"{describe(judged, f'on {pictures} is below')} (see --force)"
            for label, part in judged.worse_labels():
                yield f"{describe(part, f'on {shown[label]} of {pictures} is below')} (see --force)"

    def _missing_gain(self, comparisons: Comparisons) -> Iterator[str]:
        if self.min_gain is None or (judged := comparisons.of.get(FEEDBACK)) is None or judged.served is None:
            return
        # Rounding removes the floating-point error of the difference.
        is_less = round(judged.gain, 9) < self.min_gain
        if is_less or (self.min_gain > 0 and judged.chance_of_gain >= MAX_CHANCE):
            missing = "" if is_less else f"; {_describe_missing(judged.missing_pictures())}"
            gain = _describe(judged, f"on {FEEDBACK} is not {self.min_gain} above", comparisons.served)
            yield f"{gain}{missing} (see --min-gain and --force)"

    def _refuse(self, reason: str) -> None:
        if not self.force:
            raise NotPublishedError(f"not published: {reason}")


def _describe(judged: Comparison, relation: str, served: str | None) -> str:
    return (
        f"the accuracy {judged.accuracy:.4f} {relation} the {judged.served_accuracy or 0:.4f} of {served}, "
        f"beyond chance: {judged.gained} answers gained, {judged.lost} lost"
    )


def _describe_missing(held_out: int) -> str:
    return f"about {HELD_OUT_PART * held_out:,} more corrections are needed, of which a fifth tests"


def _binomial_tail(least: int, count: int, share: float = 0.5) -> float:
    """Return the probability of at least `least` heads of `count` coins, each a head with this probability.

    Of the pictures that one of two equally good models alone answers correctly, each is as likely to be lost
    as to be gained.
    """
    heads = np.arange(least, count + 1)
    # Logarithms, since the coefficients of more than a thousand coins are no floating-point numbers.
    factorials = np.log(np.maximum(np.arange(count + 1), 1)).cumsum()
    ways = factorials[count] - factorials[heads] - factorials[count - heads]
    return float(np.exp(ways + heads * math.log(share) + (count - heads) * math.log1p(-share)).sum())
