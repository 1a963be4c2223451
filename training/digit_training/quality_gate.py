"""Quality gate: the accuracies that a model must reach to be published."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from digit_training.errors import NotPublishedError

if TYPE_CHECKING:
    from digit_training.comparison import Comparisons
    from digit_training.evaluation import Accuracy, MultiLabelScores

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
        if agreement.correct < MIN_AGREEMENT * agreement.count and not self.force:
            raise NotPublishedError(
                f"not published: only {agreement.correct:,} of {agreement.count:,} labels agree with the "
                "served answers, so that labels are wrong, or only mistakes were labelled; look at them with "
                "digits feedback, leave out a caller (--without-caller) or learn from all (--force)"
            )

    def check_held_out(self, count: int) -> None:
        """Raise NotPublishedError if a gain is required and the held-out inputs are too few to show it."""
        if self.min_gain is not None and count < MIN_HELD_OUT and not self.force:
            raise NotPublishedError(
                f"not published: {count} held-out inputs are too few to show a gain, which takes "
                f"{MIN_HELD_OUT} (see --min-gain and --force)"
            )

    def check(
        self, comparisons: "Comparisons", scores: "MultiLabelScores | None" = None, labels: int = 10
    ) -> None:
        """Raise NotPublishedError unless the model, of so many labels, reaches every accuracy.

        A loss or a gain counts only if chance is an unlikely reason, a loss only above MAX_LOSS.
        """
        if self.force:
            return
        served, test, feedback = comparisons.served, comparisons.test, comparisons.feedback
        name, reached = ("mAP", scores.mean_average_precision) if scores else ("accuracy", test.accuracy)
        if reached < (minimum := self.minimum(labels)):
            raise NotPublishedError(
                f"not published: the {name} {reached:.4f} is below the minimum of {minimum} for {labels:,} "
                "labels (see --min-accuracy and --force)"
            )
        for comparison in comparisons.all:
            if comparison.chance_of_loss < MAX_CHANCE and comparison.gain < -MAX_LOSS:
                raise NotPublishedError(
                    f"not published: the accuracy {comparison.accuracy:.4f} on {comparison.pictures} is "
                    f"below the {comparison.served_accuracy:.4f} of {served}, beyond chance: "
                    f"{comparison.gained} answers gained, {comparison.lost} lost (see --force)"
                )
        if self.min_gain is None or feedback is None or feedback.served is None:
            return
        may_be_chance = self.min_gain > 0 and feedback.chance_of_gain >= MAX_CHANCE
        # Rounding removes the floating-point error of the difference.
        if round(feedback.gain, 9) < self.min_gain or may_be_chance:
            raise NotPublishedError(
                f"not published: the accuracy {feedback.accuracy:.4f} on {feedback.pictures} is not "
                f"{self.min_gain} above the {feedback.served_accuracy:.4f} of {served}, beyond chance: "
                f"{feedback.gained} answers gained, {feedback.lost} lost (see --min-gain and --force)"
            )
