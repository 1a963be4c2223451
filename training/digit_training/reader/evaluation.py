"""Evaluation of the reader on drawn pages, and the choice of its threshold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from digit_core.reading.boxes import overlaps
from digit_core.reading.certainty import log_odds, sigmoid
from digit_core.reading.lines import digits_and_signs
from digit_core.reading.peaks import SIGN, Peaks
from digit_training.finder import MIN_SCORE
from digit_training.reader.pages import Page

MIN_OVERLAP = 0.4
"""Least intersection over union of a digit's box and the one that finds it."""
NEWTON_STEPS = 12
MAX_FALSE_PAGES = 0.07
"""Share of pages without a digit on which the reader may find one."""


@dataclass(frozen=True, slots=True)
class Finds:
    """Scores of right digits, of all other finds, and the best score of each page without a digit."""

    right: NDArray[np.float32]
    wrong: NDArray[np.float32]
    empty: NDArray[np.float32]
    digits: int

    def threshold(self) -> float:
        """Return the score that all but MAX_FALSE_PAGES of the pages without a digit stay below.

        It is at least the score of the faintest peak: a network that has learned nothing finds none.
        """
        return max(MIN_SCORE, float(np.quantile(self.empty, 1 - MAX_FALSE_PAGES)))

    def slope(self) -> float:
        """Platt scaling: return the factor of the logits that makes scores probabilities of being right.

        J. Platt, "Probabilistic outputs for support vector machines", 1999.
        """
        logits = log_odds(np.concatenate((self.right, self.wrong)).astype(float))
        is_right = np.arange(len(logits)) < len(self.right)
        return float(fit_logistic(np.stack((logits, np.ones(len(logits))), axis=1), is_right)[0])

    def recall(self, threshold: float) -> float:
        """Return the share of digits that are found, and read right, at this threshold."""
        return float((self.right >= threshold).sum() / max(1, self.digits))

    def precision(self, threshold: float) -> float:
        """Return the share of right digits among what is found at this threshold."""
        right, wrong = int((self.right >= threshold).sum()), int((self.wrong >= threshold).sum())
        return right / max(1, right + wrong)

    def to_document(self, threshold: float) -> dict[str, Any]:
        """Return the entry of the model card."""
        return {
            "digits": self.digits,
            "recall": round(self.recall(threshold), 4),
            "precision": round(self.precision(threshold), 4),
            "pages_without_digit": len(self.empty),
            "threshold": round(threshold, 4),
            "slope": round(self.slope(), 3),
            "max_false_pages": MAX_FALSE_PAGES,
        }


def fit_logistic(inputs: NDArray[np.float64], is_right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Logistic regression by Newton's method: return the weights [m] of inputs [n, m]."""
    weights = np.zeros(inputs.shape[1])
    for _ in range(NEWTON_STEPS):
        expected = sigmoid(inputs @ weights)
        curvature = inputs.T @ (inputs * (expected * (1 - expected))[:, np.newaxis])
        weights += np.linalg.solve(curvature + 1e-6 * np.eye(len(weights)), inputs.T @ (is_right - expected))
    return weights


def score(pages: Sequence[Page], found: Sequence[Peaks]) -> Finds:
    """Compare the peaks found on each page with the digits written there."""
    right: list[float] = []
    wrong: list[float] = []
    empty: list[float] = []
    digits = 0
    for page, peaks in zip(pages, found, strict=True):
        found_digits, _ = digits_and_signs(peaks)
        scores = found_digits.scores.tolist()
        is_digit = (page.classes >= 0) & (page.classes < SIGN)
        digits += int(is_digit.sum())
        if not len(page.classes):
            empty.append(max(scores, default=0.0))
        # Boxes that the page cuts off may be found, or not.
        shares = overlaps(found_digits.boxes, page.boxes)
        for index, value in enumerate(scores):
            best = int(shares[index].argmax()) if len(page.classes) else -1
            if best < 0 or shares[index, best] < MIN_OVERLAP:
                wrong.append(value)
            elif page.classes[best] >= 0:
                label = int(found_digits.classes[index, :SIGN].argmax())
                (right if label == page.classes[best] else wrong).append(value)
    right_scores, wrong_scores, empty_scores = (
        np.array(values, np.float32) for values in (right, wrong, empty)
    )
    return Finds(right_scores, wrong_scores, empty_scores, digits)
