"""Certainty: the probability that the text of a line is right, from both networks' answers.

Logistic regression on a few features of the line. Its weights are fitted on drawn pictures, and travel with
the reader, so that each version has its own.
"""

import numpy as np
from numpy.typing import NDArray

from digit_core.reading.boxes import are_near, areas, intersections
from digit_core.reading.peaks import Peaks
from digit_core.reading.thresholds import THRESHOLDS

FEATURES = 5
"""Number of a line's features. A reader has the weights of the first ones that its release knew."""


def line_confidence(line: Peaks, probabilities: NDArray[np.float32], omitted: Peaks) -> float:
    """Return the probability that the text of a line is right.

    `line` has its k digits and `probabilities` [k, 10] theirs; `omitted` are the peaks of digits that are in
    no text. Without weights, or with those of a newer release's features, the digits count as independent.
    """
    weights = line.line_weights
    if weights is None or len(weights) > FEATURES:
        return float(probabilities.max(axis=1).prod(dtype=float))
    return float(sigmoid(line_features(line, probabilities, omitted)[: len(weights)] @ weights))


def line_features(line: Peaks, probabilities: NDArray[np.float32], omitted: Peaks) -> NDArray[np.float64]:
    """Return the features of a line, float64 [FEATURES].

    They are the log-odds of its least probable digit, those of its lowest score, the highest score of an
    omitted peak, times the share of it that no digit covers, 1, and the logarithm of the number of digits: a
    row of digits is seldom an accident, one alone may be.
    """
    return np.array(
        [
            log_odds(probabilities.max(axis=1)).min(),
            log_odds(line.scores).min(),
            _best_omitted(line.boxes, omitted),
            1.0,
            np.log(len(line)),
        ]
    )


def log_odds(probabilities: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the log-odds of probabilities, clipped to `least_doubt`."""
    clipped = np.clip(probabilities, THRESHOLDS.least_doubt, 1 - THRESHOLDS.least_doubt)
    return np.asarray(np.log(clipped / (1 - clipped)))


def sigmoid(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the probabilities of log-odds."""
    return np.asarray(1 / (1 + np.exp(-values)))


def _best_omitted(boxes: NDArray[np.float32], omitted: Peaks) -> float:
    """Return the highest score of an omitted peak near the line, times the share that no box of it covers."""
    covered = intersections(omitted.boxes, boxes).max(axis=1) / areas(omitted.boxes)
    return float((omitted.scores * (1 - covered) * are_near(omitted.boxes, boxes)).max(initial=0.0))
