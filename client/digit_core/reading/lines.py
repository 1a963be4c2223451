"""Lines: the digits on a page, from the peaks of the reader and the predictions of the digits' model.

The reader says where digits are. Both networks say which digits: their probabilities are mixed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from heapq import nlargest
from itertools import chain

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_core.errors import InvalidOutputError
from digit_core.images.crops import crop_digit
from digit_core.images.normalisation import SIDE
from digit_core.images.pages import Page
from digit_core.reading.boxes import are_near, areas, common_rows, intersections, overlaps
from digit_core.reading.certainty import log_odds, sigmoid
from digit_core.reading.expectations import parse_expectation
from digit_core.reading.peaks import SIGN, Peaks
from digit_core.reading.thresholds import THRESHOLDS
from digit_core.reading.viterbi import Places, Search, decode
from digit_core.results import MIN_IS_DIGIT, Answer, Prediction

_TINY = float(np.finfo(float).eps)
_DATE = parse_expectation("#{1,2}/#{1,2}/##|#{1,2}/#{1,2}/####|####/##/##")
_ONE_DATE = Search(count=1)
_MAX_DATE = 10
"""Largest number of digits and signs of a date."""


@dataclass(frozen=True, slots=True)
class Detected:
    """Findings of the reader on a page: digits, with a crop of each, uint8 [28, 28], and signs.

    A page without a digit has one black crop: the model's answer to it has the model's version.
    """

    page: Page
    digits: Peaks
    glyphs: Sequence[NDArray[np.uint8]]
    signs: Peaks

    @property
    def is_anything(self) -> bool:
        """True if the reader found any peak. Blank paper has none; a digit that is cut off has some."""
        return len(self.digits) + len(self.signs) > 0


@dataclass(frozen=True, slots=True)
class FoundLines:
    """Lines of digits on a page.

    `detected` has all n peaks of digits, and the signs without a better rival; `predictions` are the n of the
    model, `probabilities` float32 [n, 10] and `is_digit` [n] those by both networks. `lines` has the indexes
    of the digits of each line, `slashes` those of signs that look like 1s; `omitted_lines` those of lines
    that are not numbers, each with its `is_digit`.
    """

    detected: Detected
    predictions: Sequence[Prediction]
    probabilities: NDArray[np.float32]
    is_digit: NDArray[np.floating]
    lines: Sequence[Sequence[int]]
    slashes: Sequence[int]
    omitted_lines: Sequence[tuple[Sequence[int], float]]

    def omitted(self) -> Peaks:
        """Return the peaks of digits that are in no line."""
        return self.detected.digits.without([*self.slashes, *chain.from_iterable(self.lines)])

    def sure_signs(self) -> Peaks:
        """Return the signs of which the reader is sure."""
        signs = self.detected.signs
        return signs[np.flatnonzero(signs.scores >= THRESHOLDS.min_score)]


def detect(page: Page, peaks: Peaks) -> Detected:
    """Return the digits and signs that may be on the page. `settle` decides between those that overlap."""
    digits, signs = _by_kind(_merge(peaks))
    glyphs = [crop_digit(page, box) for box in digits.boxes] or [np.zeros((SIDE, SIDE), np.uint8)]
    return Detected(page, digits, glyphs, signs)


def settle(detected: Detected, answers: Sequence[Answer]) -> tuple[Detected, Sequence[Prediction]]:
    """Non-maximum suppression by both networks: return each digit and sign once, and the predictions left.

    Takes one answer for each crop, and raises its InvalidOutputError: without one of its digits, a number
    would be another number. The model tells a digit from the circle around it.
    """
    predictions, chosen, signs = _settle(detected, answers)
    glyphs = [detected.glyphs[index] for index in chosen]
    settled = replace(detected, digits=detected.digits[chosen], glyphs=glyphs, signs=detected.signs[signs])
    return settled, [predictions[index] for index in chosen]


def _settle(
    detected: Detected, answers: Sequence[Answer]
) -> tuple[list[Prediction], NDArray[np.intp], NDArray[np.intp]]:
    """Return the predictions, and the indexes of the digits and signs without a better rival, best first."""
    digits, signs = detected.digits, detected.signs
    predictions: list[Prediction] = []
    for answer in answers if len(digits) else ():
        if isinstance(answer, InvalidOutputError):
            raise answer
        predictions.append(answer)
    evidence = log_odds(digits.scores) + THRESHOLDS.rival_weight * log_odds(_is_digit(predictions))
    rivals = _are_rivals(np.concatenate((digits.boxes, signs.boxes)))
    kept = np.array(_suppress(rivals, np.concatenate((evidence, log_odds(signs.scores)))), np.intp)
    return predictions, kept[kept < len(digits)], kept[kept >= len(digits)] - len(digits)


def digits_and_signs(peaks: Peaks) -> tuple[Peaks, Peaks]:
    """Return the peaks of digits and those of signs: each thing once, as the reader alone sees it."""
    peaks = peaks[np.flatnonzero(peaks.scores)]
    return _by_kind(peaks[_suppress(_are_rivals(peaks.boxes), peaks.scores)])


def lone_digit(page: Page, digit: NDArray[np.uint8]) -> Detected:
    """Return the one digit, uint8 [28, 28], that is all ink of a page, without asking the reader.

    Its score and its classes leave the decision to the model.
    """
    rows, columns = page.levels.shape
    box = cv2.boundingRect(page.digit) if page.digit is not None else (0, 0, columns, rows)
    classes = np.array([[1 / SIGN] * SIGN + [0]], np.float32)
    found = Peaks(np.array([THRESHOLDS.neutral_score], np.float32), classes, np.array([box], np.float32))
    return Detected(page, found, [digit], found[[]])


def find_lines(
    detected: Detected, answers: Sequence[Answer], min_is_digit: float = MIN_IS_DIGIT
) -> FoundLines:
    """Return the lines of digits on the page. Takes one answer for each crop, and raises its error."""
    digits = detected.digits
    predictions, chosen, signs = _settle(detected, answers)
    weights = np.ones(len(digits))
    weights[chosen] = _model_weights(digits.boxes[chosen])
    evidence = _evidence(digits.scores, predictions, weights)
    found = _choose(digits[chosen], evidence[chosen], min_is_digit)
    probabilities = _mix(digits, predictions, weights)
    whole = [(chosen[line].tolist(), together) for line, together in found]
    settled = replace(detected, signs=detected.signs[signs])
    lines = FoundLines(settled, predictions, probabilities, sigmoid(evidence), [], [], [])
    kept = [line for line, together in whole if together >= min_is_digit]
    parted = [_without_slashes(line, lines) for line in kept]
    return replace(
        lines,
        lines=parted,
        slashes=sorted({*chain.from_iterable(kept)} - {*chain.from_iterable(parted)}),
        omitted_lines=[(line, together) for line, together in whole if together < min_is_digit],
    )


def find_places(found: FoundLines, line: Sequence[int]) -> Places:
    """Return the places of a line that may have a digit or a sign, from left to right.

    They are the line's own digits, weaker and suppressed peaks, slashes, and signs, which may be 1s. Of other
    peaks than its own, a line has its share of `max_others`, the best ones.
    """
    detected = found.detected
    digits, signs = detected.digits, detected.signs
    most = THRESHOLDS.max_others // (len(found.lines) + len(found.omitted_lines))
    taken = {*chain.from_iterable(found.lines), *chain.from_iterable(each for each, _ in found.omitted_lines)}
    is_near = are_near(digits.boxes, digits.boxes[line])
    weak = np.flatnonzero(is_near & (digits.scores >= THRESHOLDS.min_weak_score))
    others = [index for index in weak.tolist() if index not in taken]
    marks = are_near(signs.boxes, digits.boxes[line]) & (signs.scores >= THRESHOLDS.min_weak_score)
    chosen = [*line, *sorted(nlargest(most, others, digits.scores.__getitem__))]
    marked = np.array(sorted(nlargest(most, np.flatnonzero(marks), signs.scores.__getitem__)), np.intp)
    present = np.minimum(digits.scores[chosen].astype(float), THRESHOLDS.max_present)
    present[: len(line)] = THRESHOLDS.max_present
    present[[place for place, index in enumerate(chosen) if index in found.slashes]] = THRESHOLDS.max_present
    is_sign = digits.classes[chosen, SIGN, np.newaxis]
    digit_rows = np.hstack((found.probabilities[chosen] * (1 - is_sign), is_sign)) * present[:, np.newaxis]
    sign_rows = (
        signs.classes[marked] * np.minimum(signs.scores[marked], THRESHOLDS.max_present)[:, np.newaxis]
    )
    boxes = np.concatenate((digits.boxes[chosen], signs.boxes[marked]))
    order = np.argsort(boxes[:, 0] + boxes[:, 2] / 2, kind="stable")
    symbols = np.concatenate((digit_rows, sign_rows)).astype(np.float64)
    indexes = np.array([*chosen, *(len(digits) + marked).tolist()], np.intp)
    missed = _missed_signs(boxes[order], digits.boxes[line])
    return Places(indexes[order], boxes[order], symbols[order], _are_rivals(boxes[order]), missed)


def _missed_signs(boxes: NDArray[np.float32], line: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the probability that a sign before each box, and behind the last one, is not seen: [n + 1].

    A wide gap between the digits of a line parts as a sign does.
    """
    ends, starts = line[:, 0] + line[:, 2], line[:, 0]
    height = np.median(line[:, 3])
    before = np.where(starts < boxes[:, :1] + 0.25 * boxes[:, 2:3], ends, -np.inf)
    before[(boxes[:, :1] == starts)] = -np.inf
    gaps = (boxes[:, 0] - before.max(axis=1)) / height
    usual = np.quantile((starts[1:] - ends[:-1]) / height, 0.25) if len(line) > 2 else 0.0
    missed = np.full(len(boxes) + 1, THRESHOLDS.missed_sign)
    missed[:-1][np.isfinite(gaps) & (gaps > usual + THRESHOLDS.wide_gap)] = THRESHOLDS.missed_in_gap
    return missed


def choose_digits(
    detected: Detected, predictions: Sequence[Prediction], min_is_digit: float = MIN_IS_DIGIT
) -> tuple[list[int], float]:
    """Return the indexes of the digits, and the highest `is_digit` of a line, or 0 without a line.

    Takes the results of `settle`. The `is_digit` of a line is the mean of its digits', in log-odds. A line
    below `min_is_digit` is left out, so that words and buttons beside a number do not refuse it.

    Hysteresis: beside a digit of which the reader is sure, a weaker peak is a digit if both networks together
    are sure. A plain stroke, for example, is a 1 only in a number. J. Canny, "A computational approach to
    edge detection", IEEE PAMI 8, 1986.
    """
    weights = _model_weights(detected.digits.boxes)
    evidence = _evidence(detected.digits.scores, predictions, weights)
    lines = _choose(detected.digits, evidence, min_is_digit)
    kept = [line for line, together in lines if together >= min_is_digit]
    return [*chain.from_iterable(kept)], max((together for _, together in lines), default=0.0)


def mix_best(prediction: Prediction, peaks: Peaks) -> Prediction:
    """Return the prediction of a picture of one digit with the classes of its best peak mixed in."""
    digits, _ = digits_and_signs(peaks)
    if not len(digits):
        return prediction
    (values,) = _mix(digits[[0]], [prediction], np.ones(1)).tolist()
    best = max(values)
    return replace(prediction, index=values.index(best), confidence=best, probabilities=tuple(values))


def _choose(
    digits: Peaks, evidence: NDArray[np.floating], min_is_digit: float
) -> list[tuple[list[int], float]]:
    """Return the indexes of the digits of each line, with its `is_digit`. Takes the best digits first."""
    if not len(digits):
        return []
    is_sure = digits.scores >= THRESHOLDS.min_score
    is_digit = is_sure | (sigmoid(evidence) >= min_is_digit)
    chosen = np.flatnonzero(is_digit) if is_sure.any() else np.array([digits.scores.argmax()])
    lines = [chosen[line].tolist() for line in _lines(digits.boxes[chosen])]
    found = [(line, float(sigmoid(evidence[line].mean()))) for line in lines]
    is_weak = (digits.scores >= THRESHOLDS.min_line_score) & (
        sigmoid(evidence) >= THRESHOLDS.min_line_is_digit
    )
    is_weak[chosen] = False
    for line, together in found if is_weak.any() else ():
        if together >= min_is_digit and is_sure[line].sum() > 1:
            _add_weak(line, digits.boxes, is_weak)
    return found


def _add_weak(line: list[int], boxes: NDArray[np.float32], is_weak: NDArray[np.bool_]) -> None:
    """Add the weak peaks on a line's rows that have its height and stand free, and mark them as not weak.

    A plain 0 or 1 looks like a digit only beside others.
    """
    heights = boxes[:, 3] / np.median(boxes[line, 3])
    is_alike = (heights >= THRESHOLDS.min_line_height) & (heights <= THRESHOLDS.max_line_height)
    for index in np.flatnonzero(is_weak & is_alike & are_near(boxes, boxes[line])).tolist():
        covered = intersections(boxes[[index]], boxes[line]).max() / areas(boxes[[index]])[0]
        if covered < THRESHOLDS.max_line_covered:
            line.append(index)
            is_weak[index] = False
    line.sort(key=lambda index: float(boxes[index, 0]))


def _evidence(
    scores: NDArray[np.float32], predictions: Sequence[Prediction], weights: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Return the log-odds of each `is_digit`, by reader and model.

    Naive Bayes: the odds of both are multiplied, those of the model with its weight. A `neutral_score` leaves
    the model's as they are; a `neutral_score_alone` leaves the odds even where the model has no weight.
    """
    neutral, alone = log_odds(np.array([THRESHOLDS.neutral_score, THRESHOLDS.neutral_score_alone]))
    by_model = weights * (log_odds(_is_digit(predictions)) - neutral + alone)
    return np.asarray(log_odds(scores) - alone + by_model)


def _is_digit(predictions: Sequence[Prediction]) -> NDArray[np.float64]:
    """Return each `is_digit`; for a model without it, 1 if the class is confident enough, or 0."""
    return np.array(
        [float(each.looks_like_digit()) if each.is_digit is None else each.is_digit for each in predictions]
    )


def _by_kind(peaks: Peaks) -> tuple[Peaks, Peaks]:
    """Return the peaks that are digits and those that are signs."""
    is_sign = peaks.classes.argmax(axis=1) == SIGN
    return peaks[np.flatnonzero(~is_sign)], peaks[np.flatnonzero(is_sign)]


def _merge(peaks: Peaks) -> Peaks:
    """Non-maximum suppression with votes: return the best peak of each thing, with the mean classes of all.

    A vote weighs as much as its squared score.
    """
    same = overlaps(peaks.boxes, peaks.boxes) > THRESHOLDS.min_same_overlap
    votes = same * peaks.scores**2
    total = np.maximum(votes.sum(axis=1, keepdims=True), _TINY)
    classes = np.asarray(votes @ peaks.classes / total, np.float32)
    return replace(peaks, classes=classes)[_suppress(same, peaks.scores)]


def _are_rivals(boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return for each two boxes if one covers too much of the other for both to be digits: bool [k, k]."""
    area = areas(boxes)
    smaller = np.minimum(area[:, np.newaxis], area)
    return np.asarray(intersections(boxes, boxes) > THRESHOLDS.max_covered * smaller)


def _suppress(rivals: NDArray[np.bool_], evidence: NDArray[np.floating]) -> list[int]:
    """Non-maximum suppression: return the indexes that have no better rival, the best one first."""
    kept: list[int] = []
    for index in np.argsort(-evidence, kind="stable").tolist():
        if not rivals[index, kept].any():
            kept.append(index)
    return kept


def _model_weights(boxes: NDArray[np.float32]) -> NDArray[np.floating]:
    """Return the weight of the model for each digit, [k].

    It falls from 1 to 0 as a neighbour covers more of the digit, whose crop then shows both.
    """
    common = intersections(boxes, boxes)
    np.fill_diagonal(common, 0)
    covered = common.max(axis=1, initial=0) / areas(boxes)
    return np.asarray(np.clip(1 - covered / THRESHOLDS.max_covered, 0, 1))


def _mix(
    peaks: Peaks, predictions: Sequence[Prediction], weights: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Return the probabilities of the ten digits, float32 [k, 10], by reader and model.

    Logarithmic opinion pool, with the model's weight for each digit.
    """
    found = np.maximum(peaks.classes[:, :SIGN], _TINY)
    classified = np.array([each.probabilities for each in predictions]).reshape(-1, SIGN)
    logs = np.log(found) + weights[:, np.newaxis] * np.log(np.maximum(classified, _TINY))
    mixed = np.exp(logs - logs.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(mixed / mixed.sum(axis=1, keepdims=True), np.float32)


def _lines(boxes: NDArray[np.float32]) -> list[list[int]]:
    """Group boxes into lines, from top to bottom, each from left to right.

    A box continues the line whose last box's rows overlap its own most, so that lines may slant.
    """
    lines: list[list[int]] = []
    for index in np.argsort(boxes[:, 0], kind="stable").tolist():
        shares = common_rows(boxes[[line[-1] for line in lines]], boxes[[index]])[:, 0]
        if shares.max(initial=0) > THRESHOLDS.min_common_rows:
            lines[shares.argmax()].append(index)
        else:
            lines.append([index])
    return sorted(lines, key=lambda line: float(np.mean(boxes[line, 1] + boxes[line, 3] / 2)))


def _without_slashes(line: Sequence[int], found: FoundLines) -> Sequence[int]:
    """Return a line without the strokes that look like 1s but are the slashes of a date.

    The grammar of dates decides: the most probable signs and strokes that part a date are its slashes.
    """
    digits, marks = found.detected.digits[line], found.sure_signs().boxes
    marks = marks[(common_rows(marks, digits.boxes) > THRESHOLDS.min_common_rows).any(axis=1)]
    marks = marks[(marks[:, 0] > digits.boxes[0, 0]) & (marks[:, 0] < digits.boxes[-1, 0])]
    chosen = found.probabilities[line].argmax(axis=1)
    shares = digits.classes[:, SIGN] * (chosen == 1)
    are_strokes = shares >= THRESHOLDS.min_slash
    count = len(line) + len(marks)
    if count > _MAX_DATE or len(marks) + are_strokes.sum() < 2 or len(marks) > 2:
        return line
    symbols = np.zeros((count, SIGN + 1))
    symbols[np.arange(len(line)), chosen] = 1
    symbols[: len(line), SIGN] = shares * are_strokes
    symbols[len(line) :, SIGN] = 1
    boxes = np.concatenate((digits.boxes, marks))
    order = np.argsort(boxes[:, 0], kind="stable")
    rivals, missed = np.zeros((count, count), bool), np.zeros(count + 1)
    places = Places(order, boxes[order], symbols[order], rivals, missed)
    for date in decode(places, _DATE, _ONE_DATE):
        signs = {int(order[place]) for place, symbol in date.symbols if symbol == SIGN}
        if len(signs) == 2:
            return [index for place, index in enumerate(line) if place not in signs]
    return line
