"""Quality gate: the accuracies that a model must reach to be published."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from digit_training.errors import NotPublishedError

if TYPE_CHECKING:
    from digit_training.comparison import Comparisons
    from digit_training.evaluation import Accuracy, MultiLabelScores

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
                f"{count} held-out inputs are too few to show a gain, which takes {MIN_HELD_OUT} (see "
                "--min-gain and --force)"
            )

    def check(
        self, comparisons: "Comparisons", scores: "MultiLabelScores | None" = None, labels: int = 10
    ) -> None:
        """Raise NotPublishedError unless the model, of so many labels, reaches every accuracy.

        A loss or a gain counts only if chance is an unlikely reason, a loss only above MAX_LOSS.
        """
        name = "mAP" if scores else "accuracy"
        figure = scores.mean_average_precision if scores else comparisons.of[TEST].accuracy
        if figure < (minimum := self.minimum(labels)):
            self._refuse(
                f"the {name} {figure:.4f} is below the minimum of {minimum} for {labels:,} labels (see "
                "--min-accuracy and --force)"
            )
        for pictures, judged in comparisons.of.items():
            reached = f"the accuracy {judged.accuracy:.4f} on {pictures} is"
            served = (
                f"the {judged.served_accuracy or 0:.4f} of {comparisons.served}, beyond chance: "
                f"{judged.gained} answers gained, {judged.lost} lost"
            )
            if judged.chance_of_loss < MAX_CHANCE and judged.gain < -MAX_LOSS:
                self._refuse(f"{reached} below {served} (see --force)")
            if self.min_gain is None or judged.served is None or pictures != FEEDBACK:
                continue
            # Rounding removes the floating-point error of the difference.
            is_less = round(judged.gain, 9) < self.min_gain
            if is_less or (self.min_gain > 0 and judged.chance_of_gain >= MAX_CHANCE):
                self._refuse(f"{reached} not {self.min_gain} above {served} (see --min-gain and --force)")

    def _refuse(self, reason: str) -> None:
        if not self.force:
            raise NotPublishedError(f"not published: {reason}")
