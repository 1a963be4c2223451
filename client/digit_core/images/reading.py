"""Reading: the numbers on a page, from the peaks of the reader and the predictions of the digits' model.

The reader says where digits are, and both say which: their probabilities are mixed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise, product

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_core.errors import InvalidOutputError
from digit_core.images.boxes import MIN_COMMON_ROWS, areas, common_rows, intersections, overlaps
from digit_core.images.certainty import line_confidence, log_odds, sigmoid
from digit_core.images.crops import crop_digit
from digit_core.images.normalisation import SIDE
from digit_core.images.pages import Page
from digit_core.peaks import SIGN, Peaks
from digit_core.results import (
    MIN_IS_DIGIT,
    Answer,
    Box,
    Digit,
    Line,
    Opinion,
    Opinions,
    Prediction,
    Reading,
)

_TINY = float(np.finfo(float).eps)


@dataclass(frozen=True, slots=True)
class ReadingConfig:
    """Thresholds of the reading."""

    min_score: float = 0.4
    """Least score of a digit of which the reader alone is sure."""
    min_together: float = 0.92
    """Least probability of a digit by reader and model together."""
    min_same_overlap: float = 0.7
    """Intersection over union above which two peaks are one thing, seen at two levels of the pyramid."""
    model_weight: float = 0.5
    """Weight of the model between rivals: it sees their crops only, and a part of a digit may be another."""
    max_covered: float = 0.6
    """Largest share of a box that another one covers; there the reader alone says which digit it is."""
    min_slash_share: float = 0.1
    """Least probability of a sign that the reader gives a 1 that parts a date."""
    max_pitch: float = 2.2
    """Largest distance of the middles of two digits of a number, as a multiple of the higher one's height."""


_CONFIG = ReadingConfig()
_DATES = ((4, 2, 2), *product((1, 2), (1, 2), (2, 4)))
"""Numbers of digits before, between and behind the two signs of a date."""


@dataclass(frozen=True, slots=True)
class Detected:
    """Findings of the reader on a page: digits, with a crop of each, uint8 [28, 28], and signs.

    A page without a digit has one black crop: the model's answer to it has the model's version.
    """

    page: Page
    digits: Peaks
    glyphs: Sequence[NDArray[np.uint8]]
    signs: Peaks
    rivals: Peaks
    """Peaks of digits that `settle` left out."""

    @property
    def is_anything(self) -> bool:
        """True if the reader sees anything: not on blank paper, but on a digit that is cut off, parts."""
        return len(self.digits) + len(self.signs) > 0


@dataclass(frozen=True, slots=True)
class FoundLines:
    """Lines of digits on a page.

    `detected` is what `settle` leaves, `predictions` its n; `probabilities` float32 [n, 10] and `is_digit`
    [n] are those by both networks. `lines` has the indexes of the digits of each line, `slashes` those of
    signs that look like 1s.
    """

    detected: Detected
    predictions: Sequence[Prediction]
    probabilities: NDArray[np.float32]
    is_digit: NDArray[np.floating]
    lines: Sequence[Sequence[int]]
    slashes: Sequence[int]
    is_part: bool
    """True if a line is left out, which is no number."""

    def omitted(self) -> Peaks:
        """Return the peaks of digits that are in no line."""
        used = [*self.slashes, *chain.from_iterable(self.lines)]
        return self.detected.rivals + self.detected.digits.without(used)


def detect(page: Page, peaks: Peaks) -> Detected:
    """Return what may be on the page: rivals, which overlap, are left to `settle`."""
    digits, signs = _by_kind(_merge(peaks))
    glyphs = [crop_digit(page, box) for box in digits.boxes] or [np.zeros((SIDE, SIDE), np.uint8)]
    return Detected(page, digits, glyphs, signs, digits[[]])


def settle(detected: Detected, answers: Sequence[Answer]) -> tuple[Detected, Sequence[Prediction]]:
    """Non-maximum suppression by both networks: return each digit and sign once, and the predictions left.

    Takes one answer for each crop, and raises its InvalidOutputError: without a digit, a number would be
    another one. The model tells a digit from the circle around it.
    """
    digits, signs = detected.digits, detected.signs
    if not len(digits):
        return detected, []
    predictions = []
    for answer in answers:
        if isinstance(answer, InvalidOutputError):
            raise answer
        predictions.append(answer)
    is_digit = _is_digit(predictions)
    evidence = log_odds(digits.scores) + _CONFIG.model_weight * log_odds(is_digit)
    rivals = _are_rivals(np.concatenate((digits.boxes, signs.boxes)))
    kept = np.array(_suppress(rivals, np.concatenate((evidence, log_odds(signs.scores)))))
    chosen = kept[kept < len(digits)]
    glyphs = [detected.glyphs[index] for index in chosen]
    signs = signs[kept[kept >= len(digits)] - len(digits)]
    settled = Detected(detected.page, digits[chosen], glyphs, signs, digits.without(chosen))
    return settled, [predictions[index] for index in chosen]


def digits_and_signs(peaks: Peaks) -> tuple[Peaks, Peaks]:
    """Return the peaks that are digits and those that are signs; each thing once, by the reader alone."""
    peaks = peaks[np.flatnonzero(peaks.scores)]
    return _by_kind(peaks[_suppress(_are_rivals(peaks.boxes), peaks.scores)])


def lone_digit(page: Page, digit: NDArray[np.uint8]) -> Detected:
    """Return what is found on a page whose ink is one digit, uint8 [28, 28], for which nobody has to look.

    Its score and its classes leave the decision to the model.
    """
    rows, columns = page.levels.shape
    box = cv2.boundingRect(page.digit) if page.digit is not None else (0, 0, columns, rows)
    classes = np.array([[1 / SIGN] * SIGN + [0]], np.float32)
    found = Peaks(np.array([_CONFIG.min_together], np.float32), classes, np.array([box], np.float32))
    return Detected(page, found, [digit], found[[]], found[[]])


def read(
    detected: Detected,
    answers: Sequence[Answer],
    min_is_digit: float = MIN_IS_DIGIT,
    opinions: bool = False,
) -> tuple[Reading, list[NDArray[np.uint8]], bool]:
    """Return the numbers on the page, the crop of each digit, in the same order, and if a line is left out.

    Takes one answer for each crop, and settles rivals. `min_is_digit` is the least `is_digit` of a digit.
    With `opinions`, each digit has those of both networks.
    """
    version = answers[0].model_version
    found = find_lines(detected, answers, min_is_digit)
    detected, predictions, probabilities = found.detected, found.predictions, found.probabilities
    omitted = found.omitted()
    lines = []
    for indexes, signs in zip(found.lines, _separators(found), strict=True):
        confidence = line_confidence(detected.digits[indexes], probabilities[indexes], omitted)
        digits = [
            Digit(
                int(probabilities[index].argmax()),
                float(probabilities[index].max()),
                tuple(probabilities[index].tolist()),
                detected.page.to_picture(detected.digits.boxes[index]),
                is_digit=float(found.is_digit[index]),
                opinions=_opinions(detected, predictions, index) if opinions else None,
            )
            for index in indexes
        ]
        lines.append(_line(digits, signs, confidence))
    text = "\n".join(line.text for line in lines)
    confidence = math.prod(line.confidence for line in lines) if lines else 0.0
    reading = Reading(text, tuple(lines), version, confidence=confidence)
    return reading, [detected.glyphs[index] for index in chain.from_iterable(found.lines)], found.is_part


def find_lines(
    detected: Detected, answers: Sequence[Answer], min_is_digit: float = MIN_IS_DIGIT
) -> FoundLines:
    """Return the lines of digits on the page, by one answer for each crop."""
    detected, predictions = settle(detected, answers)
    evidence = _evidence(detected.digits.scores, predictions)
    found, is_digit = _choose(detected.digits, evidence, min_is_digit)
    probabilities = _mix(detected.digits, predictions)
    lines = [_without_slashes(line, detected, probabilities) for line in found]
    slashes = sorted({*chain.from_iterable(found)} - {*chain.from_iterable(lines)})
    is_part = len(found) < len(is_digit)
    return FoundLines(detected, predictions, probabilities, sigmoid(evidence), lines, slashes, is_part)


def choose_digits(
    detected: Detected, predictions: Sequence[Prediction], min_is_digit: float = MIN_IS_DIGIT
) -> tuple[list[int], float]:
    """Return the indexes of the digits, and the highest `is_digit` of a line, 0 if nothing is seen.

    Takes what `settle` returns. The `is_digit` of a line is the mean of its digits', in log-odds. A line with
    less than the least one is left out: words and buttons beside a number do not refuse it.

    Hysteresis: beside a digit of which the reader is sure, a weaker peak is a digit if both networks together
    are sure, such as a plain stroke, which is a 1 only in a number. J. Canny, "A computational approach to
    edge detection", IEEE PAMI 8, 1986.
    """
    evidence = _evidence(detected.digits.scores, predictions)
    lines, is_digit = _choose(detected.digits, evidence, min_is_digit)
    return [*chain.from_iterable(lines)], max(is_digit, default=0.0)


def mix_best(answer: Prediction, peaks: Peaks) -> Prediction:
    """Return the answer on a picture of one digit with the classes of its best peak mixed in."""
    digits, _ = digits_and_signs(peaks)
    if not len(digits):
        return answer
    (probabilities,) = _mix(digits[[0]], [answer]).tolist()
    best = _opinion(probabilities)
    return replace(answer, index=best.digit, confidence=best.confidence, probabilities=best.probabilities)


def _choose(
    digits: Peaks, evidence: NDArray[np.floating], min_is_digit: float
) -> tuple[list[list[int]], list[float]]:
    """Return the indexes of the digits of each line of digits, and the `is_digit` of all lines."""
    if not len(digits):
        return [], []
    is_sure = digits.scores >= _CONFIG.min_score
    is_digit = is_sure | (sigmoid(evidence) >= min_is_digit)
    chosen = np.flatnonzero(is_digit) if is_sure.any() else np.array([digits.scores.argmax()])
    lines = [chosen[line].tolist() for line in _lines(digits.boxes[chosen])]
    together = [float(sigmoid(evidence[line].mean())) for line in lines]
    return [line for line, mean in zip(lines, together, strict=True) if mean >= min_is_digit], together


def _evidence(scores: NDArray[np.float32], predictions: Sequence[Prediction]) -> NDArray[np.floating]:
    """Return the log-odds of each `is_digit`, by reader and model.

    Naive Bayes: the odds of both are multiplied. A score of `min_together` leaves the model's as they are.
    """
    neutral = log_odds(np.array(_CONFIG.min_together))
    return np.asarray(log_odds(scores) + log_odds(_is_digit(predictions)) - neutral)


def _is_digit(predictions: Sequence[Prediction]) -> NDArray[np.float64]:
    """Return each `is_digit`; of a model without it, 1 where it is sure enough which digit it sees."""
    return np.array(
        [float(each.looks_like_digit()) if each.is_digit is None else each.is_digit for each in predictions]
    )


def _opinions(detected: Detected, predictions: Sequence[Prediction], index: int) -> Opinions:
    """Return what each network alone takes a digit for. Uniform classes, of a lone digit, are no opinion."""
    classes = detected.digits.classes[index, :SIGN]
    by_reader = _opinion((classes / classes.sum()).tolist()) if np.ptp(classes) else None
    return Opinions(_opinion(predictions[index].probabilities), by_reader)


def _opinion(probabilities: Sequence[float]) -> Opinion:
    confidence = max(probabilities)
    return Opinion(probabilities.index(confidence), confidence, tuple(probabilities))


def _by_kind(peaks: Peaks) -> tuple[Peaks, Peaks]:
    """Return the peaks that are digits and those that are signs."""
    is_sign = peaks.classes.argmax(axis=1) == SIGN
    return peaks[np.flatnonzero(~is_sign)], peaks[np.flatnonzero(is_sign)]


def _merge(peaks: Peaks) -> Peaks:
    """Non-maximum suppression with votes: return the best peak of each thing, with the mean classes of all.

    A vote weighs as much as its squared score.
    """
    same = overlaps(peaks.boxes, peaks.boxes) > _CONFIG.min_same_overlap
    votes = same * peaks.scores**2
    total = np.maximum(votes.sum(axis=1, keepdims=True), _TINY)
    classes = np.asarray(votes @ peaks.classes / total, np.float32)
    return replace(peaks, classes=classes)[_suppress(same, peaks.scores)]


def _are_rivals(boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return of each two boxes whether one covers too much of the other for both to be digits: [k, k]."""
    area = areas(boxes)
    smaller = np.minimum(area[:, np.newaxis], area)
    return np.asarray(intersections(boxes, boxes) > _CONFIG.max_covered * smaller)


def _suppress(rivals: NDArray[np.bool_], evidence: NDArray[np.floating]) -> list[int]:
    """Non-maximum suppression: return the indexes of what has no better rival, the best first."""
    kept: list[int] = []
    for index in np.argsort(-evidence, kind="stable").tolist():
        if not rivals[index, kept].any():
            kept.append(index)
    return kept


def _mix(peaks: Peaks, predictions: Sequence[Prediction]) -> NDArray[np.float32]:
    """Return the probabilities of the ten digits, float32 [k, 10], by reader and model.

    Logarithmic opinion pool. The weight of the model falls from 1 to 0 as a neighbour covers more of the
    digit, whose crop then shows both.
    """
    if not len(peaks):
        return np.zeros((0, SIGN), np.float32)
    found = np.maximum(peaks.classes[:, :SIGN], _TINY)
    classified = np.maximum([answer.probabilities for answer in predictions], _TINY)
    common = intersections(peaks.boxes, peaks.boxes)
    np.fill_diagonal(common, 0)
    covered = common.max(axis=1) / areas(peaks.boxes)
    weight = np.clip(1 - covered / _CONFIG.max_covered, 0, 1)[:, np.newaxis]
    logs = np.log(found) + weight * np.log(classified)
    mixed = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(mixed / mixed.sum(axis=1, keepdims=True), np.float32)


def _lines(boxes: NDArray[np.float32]) -> list[list[int]]:
    """Group boxes into lines, from top to bottom, each from left to right.

    A box continues the line whose last box's rows overlap its own most, so that lines may slant.
    """
    lines: list[list[int]] = []
    for index in np.argsort(boxes[:, 0], kind="stable").tolist():
        shares = common_rows(boxes[[line[-1] for line in lines]], boxes[[index]])[:, 0]
        if shares.max(initial=0) > MIN_COMMON_ROWS:
            lines[shares.argmax()].append(index)
        else:
            lines.append([index])
    return sorted(lines, key=lambda line: float(np.mean(boxes[line, 1] + boxes[line, 3] / 2)))


def _without_slashes(
    line: Sequence[int], detected: Detected, probabilities: NDArray[np.float32]
) -> Sequence[int]:
    """Return a line without the strokes that look like 1s and are the signs of a date.

    Grammar: of the pairs of signs and such strokes that part a date, the most probable signs do.
    """
    digits, marks = detected.digits.boxes[line], _sure_signs(detected)
    marks = marks[(common_rows(marks, digits) > MIN_COMMON_ROWS).any(axis=1)]
    marks = marks[(marks[:, 0] > digits[0, 0]) & (marks[:, 0] < digits[-1, 0])]
    order = np.concatenate((digits[:, 0], marks[:, 0])).argsort(kind="stable")
    # Place in the line, -1 of a sign; and the probability of a sign.
    places = np.concatenate((np.arange(len(digits)), np.full(len(marks), -1)))[order]
    strokes = detected.digits.classes[line, SIGN] * (probabilities[line].argmax(axis=1) == 1)
    shares = np.concatenate((strokes, np.ones(len(marks))))[order]
    best, parted = 0.0, line
    for before, between, behind in _DATES:
        if before + between + behind + 2 != len(order):
            continue
        signs = [before, before + 1 + between]
        rest, share = np.delete(places, signs), shares[signs]
        if share.min() >= _CONFIG.min_slash_share and share.sum() > best and rest.min() >= 0:
            best, parted = float(share.sum()), [line[place] for place in rest]
    return parted


def _sure_signs(detected: Detected) -> NDArray[np.float32]:
    """Return the boxes of the signs of which the reader is sure."""
    return detected.signs.boxes[detected.signs.scores >= _CONFIG.min_score]


def _separators(found: FoundLines) -> list[list[Box]]:
    """Return the boxes of the signs and slashes on each line of digits, from left to right."""
    separators: list[list[Box]] = [[] for _ in found.lines]
    boxes = found.detected.digits.boxes
    marks = np.concatenate((_sure_signs(found.detected), boxes[found.slashes])) if found.lines else boxes[:0]
    for sign in marks[np.argsort(marks[:, 0], kind="stable")]:
        shares = [common_rows(boxes[line], sign[np.newaxis]).max() for line in found.lines]
        if max(shares) > MIN_COMMON_ROWS:
            separators[shares.index(max(shares))].append(found.detected.page.to_picture(sign))
    return separators


def _line(digits: Sequence[Digit], separators: Sequence[Box], confidence: float) -> Line:
    """Return a line, whose text has a space where a gap without a sign parts two numbers."""
    text = str(digits[0].digit)
    for before, digit in pairwise(digits):
        start, end = (left + width / 2 for left, _, width, _ in (before.box, digit.box))
        is_wide = end - start > _CONFIG.max_pitch * max(before.box[3], digit.box[3])
        has_sign = any(start <= left + width / 2 <= end for left, _, width, _ in separators)
        text += (" " if is_wide and not has_sign else "") + str(digit.digit)
    box = _enclose([digit.box for digit in digits])
    return Line(text, box, tuple(digits), tuple(separators), confidence=confidence)


def _enclose(boxes: Sequence[Box]) -> Box:
    """Return the smallest box around all boxes, of which there is at least one."""
    lefts, tops, widths, heights = zip(*boxes, strict=True)
    left, top = min(lefts), min(tops)
    right = max(start + length for start, length in zip(lefts, widths, strict=True))
    bottom = max(start + length for start, length in zip(tops, heights, strict=True))
    return left, top, right - left, bottom - top
