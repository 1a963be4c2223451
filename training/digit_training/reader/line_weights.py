"""Line weights: logistic regression of the probability that a line's text is right."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from digit_core import images
from digit_core.artifact.task_card import DIGITS
from digit_core.reading.boxes import common_rows, overlaps
from digit_core.reading.certainty import FEATURES, line_features, sigmoid
from digit_core.reading.lines import FoundLines, detect, find_lines
from digit_core.reading.peaks import SIGN, Peaks
from digit_core.reading.thresholds import THRESHOLDS
from digit_core.results import Prediction
from digit_training import shipped
from digit_training.classifier import predict
from digit_training.evaluation import calibration_error, reliability_bins
from digit_training.models import IS_DIGIT, PROBABILITIES
from digit_training.reader.evaluation import MIN_OVERLAP, fit_logistic
from digit_training.reader.pages import Page


@dataclass(frozen=True, slots=True)
class LineWeights:
    """Weights of the features of `count` lines, of which the share `right`, 0..1, is read right.

    `calibration_error` is that of the confidences of these lines.
    """

    weights: NDArray[np.float64]
    count: int
    right: float
    calibration_error: float

    def to_document(self) -> dict[str, Any]:
        """Return the entry of the model card."""
        return {
            "weights": [round(weight, 4) for weight in self.weights.tolist()],
            "count": self.count,
            "right": round(self.right, 4),
            "calibration_error": round(self.calibration_error, 4),
        }


def fit_line_weights(pages: Iterable[Page], find: Callable[[NDArray[np.uint8]], Peaks]) -> LineWeights:
    """Fit the weights to the lines that the reader and the shipped classifier find on drawn pages.

    Pages without a digit, and those that cut one off, are left out: nobody could read them right.
    """
    whole = [page for page in pages if _is_whole(page)]
    found = find_all([images.to_page(page.pixels) for page in whole], find)
    return fit((lines, are_right(page, lines)) for page, lines in zip(whole, found, strict=True))


def find_all(
    pages: Sequence[images.Page], find: Callable[[NDArray[np.uint8]], Peaks]
) -> Iterator[FoundLines]:
    """Yield the lines that the reader and the shipped classifier find on each page."""
    detected = [detect(page, find(page.levels)) for page in pages]
    answers = iter(_classify([*chain.from_iterable(each.glyphs for each in detected)]))
    return (find_lines(seen, [*islice(answers, len(seen.glyphs))]) for seen in detected)


def fit(measured: Iterable[tuple[FoundLines, Sequence[bool]]]) -> LineWeights:
    """Fit the weights to the lines of pages, by whether each line is right."""
    features: list[NDArray[np.float64]] = []
    right: list[bool] = []
    for found, are_right_lines in measured:
        digits, omitted = found.detected.digits, found.omitted()
        features += [line_features(digits[line], found.probabilities[line], omitted) for line in found.lines]
        right += are_right_lines
    if not right:
        return LineWeights(np.zeros(FEATURES), 0, 0.0, 0.0)
    inputs, is_right = np.array(features), np.array(right, bool)
    weights = fit_logistic(inputs, is_right)
    error = calibration_error(reliability_bins(sigmoid(inputs @ weights), is_right))
    return LineWeights(weights, len(right), float(is_right.mean()), error)


def are_right(page: Page, found: FoundLines) -> list[bool]:
    """Return for each line whether it has all digits that stand on its rows, read right, and no others."""
    boxes = found.detected.digits.boxes
    is_digit = page.classes < SIGN
    shares = overlaps(boxes, page.boxes)
    best = shares.argmax(axis=1)
    is_match = shares.max(axis=1) >= MIN_OVERLAP
    is_read = is_match & (page.classes[best] == found.probabilities.argmax(axis=1))
    used = [*chain.from_iterable(found.lines)]
    is_missed = is_digit & ~np.isin(np.arange(len(is_digit)), best[used][is_match[used]])
    return [
        bool(is_read[line].all())
        and len({*best[line].tolist()}) == len(line)
        and not (common_rows(boxes[line], page.boxes[is_missed]) > THRESHOLDS.min_common_rows).any()
        for line in found.lines
    ]


def _is_whole(page: Page) -> bool:
    """True if the page has digits and cuts none of them off."""
    rows, columns = page.pixels.shape
    starts, ends = page.boxes[:, :2], page.boxes[:, :2] + page.boxes[:, 2:]
    is_inside = (starts > 1).all() and (ends < (columns - 1, rows - 1)).all() and (page.classes >= 0).all()
    return bool(is_inside and (page.classes < SIGN).any())


def _classify(glyphs: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
    if not glyphs:
        return []
    outputs = predict(shipped.load_classifier(), np.stack(glyphs), DIGITS)
    return [
        Prediction(int(row.argmax()), float(row.max()), tuple(row.tolist()), DIGITS.labels, 1, is_digit=score)
        for row, score in zip(outputs[PROBABILITIES], outputs[IS_DIGIT].tolist(), strict=True)
    ]
