"""Texts: the numbers on a page, from the lines of digits that both networks see there."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import nlargest
from itertools import chain, product
from operator import attrgetter, itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from digit_core.errors import TooManyDigitsError
from digit_core.images.crops import crop_digit
from digit_core.options import DEFAULTS, Options
from digit_core.reading.boxes import common_rows, enclose
from digit_core.reading.certainty import line_confidence
from digit_core.reading.expectations import Expectation, parse_expectation
from digit_core.reading.lines import Detected, FoundLines, find_lines, find_places
from digit_core.reading.peaks import SIGN
from digit_core.reading.thresholds import THRESHOLDS
from digit_core.reading.viterbi import Path, Places, Search, decode
from digit_core.results import Answer, Box, Candidate, Digit, Line, Opinion, Opinions, Reading

_ANYTHING = parse_expectation()
_CANDIDATES = Search(max_cost=-math.log(THRESHOLDS.min_candidate))


def read(
    detected: Detected,
    answers: Sequence[Answer],
    options: Options = DEFAULTS,
    max_digits: int | None = None,
) -> tuple[Reading, list[NDArray[np.uint8]], bool]:
    """Return the numbers on the page, the crop of each digit, in order, and whether a line is left out.

    Takes one answer for each crop, and settles rivals. The options are those of ReadOptions. With an
    expectation, the reading has the one line that fits best, and is refused if no line fits. Raise
    TooManyDigitsError if the lines have more than `max_digits`.
    """
    found = find_lines(detected, answers, options["min_is_digit"])
    if max_digits is not None and (count := sum(map(len, found.lines))) > max_digits:
        raise TooManyDigitsError(f"the image shows {count} digits; at most {max_digits} are read")
    version, opinions = answers[0].model_version, "opinions" in options["include"]
    if options.expectation:
        reading, glyphs = _read_expected(found, options, options.expectation, version)
    else:
        reading, glyphs = _read_lines(found, version, opinions)
    return reading, glyphs, bool(found.omitted_lines)


def _read_lines(found: FoundLines, version: int, opinions: bool) -> tuple[Reading, list[NDArray[np.uint8]]]:
    """Return the reading of all lines, and the crop of each digit."""
    lines: list[Line] = []
    candidates: list[Candidate] = []
    omitted = found.omitted()
    for indexes, signs in zip(found.lines, _separators(found), strict=True):
        confidence = line_confidence(found.detected.digits[indexes], found.probabilities[indexes], omitted)
        chosen = [(index, int(found.probabilities[index].argmax())) for index in indexes]
        symbols = [(symbol, found.detected.digits.boxes[index]) for index, symbol in chosen]
        text = _text([*symbols, *((SIGN, box) for box in signs)])
        digits = _digits(found, chosen, opinions)
        line = _line(text, confidence, digits, tuple(map(found.detected.page.to_picture, signs)))
        of_line = _candidates(found, indexes, line)
        candidates = _best(map(_join, product(candidates, of_line))) if lines else of_line
        lines.append(line)
    reading = Reading(
        "\n".join(line.text for line in lines),
        tuple(lines),
        version,
        confidence=math.prod(line.confidence for line in lines) if lines else 0.0,
        candidates=tuple(candidates),
    )
    return reading, [found.detected.glyphs[index] for index in chain.from_iterable(found.lines)]


@dataclass(frozen=True, slots=True)
class _Fit:
    """Fit of a line to an expectation: the probability that it is as expected, and that of the best path.

    Without a path, none is probable enough.
    """

    share: float
    probability: float
    places: Places
    path: Path | None
    candidates: Sequence[Candidate]


def _read_expected(
    found: FoundLines, options: Options, expectation: Expectation, version: int
) -> tuple[Reading, list[NDArray[np.uint8]]]:
    """Return the reading of the line that fits best, and the crop of each digit."""
    lines = [*((line, 1.0) for line in found.lines), *found.omitted_lines]
    fits = [_fit(find_places(found, indexes), options, expectation, is_digit) for indexes, is_digit in lines]
    best = max(fits, key=attrgetter("share"), default=None)
    if best is None:
        return Reading("", (), version, confidence=0.0), []
    given: Any = {"confidence": best.probability, "candidates": tuple(best.candidates)}
    if best.path is None:
        refusal = "unsure" if best.share >= THRESHOLDS.min_expected else "unexpected"
        return Reading("", (), version, refusal=refusal, **given), []
    indexes, boxes = best.places.indexes, best.places.boxes
    chosen = [(int(indexes[place]), symbol) for place, symbol in best.path.symbols if symbol != SIGN]
    signs = [boxes[place] for place, symbol in best.path.symbols if symbol == SIGN]
    digits = _digits(found, chosen, "opinions" in options["include"])
    line = _line(best.path.text, best.probability, digits, tuple(map(found.detected.page.to_picture, signs)))
    return Reading(line.text, (line,), version, **given), [_glyph(found, index) for index, _ in chosen]


def _fit(places: Places, options: Options, expectation: Expectation, is_digit: float) -> _Fit:
    """Return the fit of the places of a line; `is_digit` is the probability that it shows digits.

    Bayes' rule: a text that fits weighs as much as its evidence; any other text `unknown` of that, times the
    density of the expectation, by which it fits by accident. Where the number must be valid, the others count
    only in the choice of the line; a text that is read without this knowledge is read with it.
    """
    seen = decode(places, _ANYTHING)
    paths = decode(places, expectation, best=seen[0].cost)
    prior = THRESHOLDS.unknown * (_density(paths[0], expectation) if paths else 1.0)
    weights = {path.text: prior * math.exp(-path.cost) for path in seen}
    fitting = {path.text: math.exp(-path.cost) for path in paths}
    best, expected = max(fitting.values(), default=0.0), sum(fitting.values())
    total = (sum(weights.values()) + expected) / is_digit
    share, is_read = expected / total, best / total >= THRESHOLDS.min_expected
    if options["valid"] and fitting:
        weights, total = {}, expected / is_digit
        is_read |= best / total >= THRESHOLDS.min_valid
    candidates = _best(Candidate(text, weight / total) for text, weight in (weights | fitting).items())
    return _Fit(share, best / total, places, paths[0] if is_read else None, candidates)


def _density(path: Path, expectation: Expectation) -> float:
    """Return the share of the strings as long as a text that fit as well."""
    length = sum(symbol != SIGN for _, symbol in path.symbols)
    return max(THRESHOLDS.min_density, expectation.density(length))


def _candidates(found: FoundLines, indexes: Sequence[int], line: Line) -> list[Candidate]:
    """Return the text of a line, and the most probable others, which share the rest of its confidence."""
    candidates = [Candidate(line.text, line.confidence)]
    doubt = 1 - line.confidence
    if doubt < THRESHOLDS.min_candidate:
        return candidates
    places = find_places(found, indexes)
    weights = {
        _text([(symbol, places.boxes[place]) for place, symbol in path.symbols]): math.exp(-path.cost)
        for path in decode(places, _ANYTHING, _CANDIDATES)
    }
    total = sum(weights.values())
    others = total - weights.pop(line.text, 0.0) + THRESHOLDS.unknown * total
    for text, weight in weights.items():
        candidates.append(Candidate(text, min(doubt * weight / others, line.confidence)))
    return candidates


def _best(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return the most probable candidates, the best one first; at least one."""
    first, *others = nlargest(THRESHOLDS.max_candidates, candidates, key=attrgetter("probability"))
    return [first, *(each for each in others if each.probability >= THRESHOLDS.min_candidate)]


def _digits(found: FoundLines, chosen: Iterable[tuple[int, int]], opinions: bool) -> tuple[Digit, ...]:
    """Return peaks as these digits. The indexes of signs follow those of the peaks of digits."""
    peaks, count = found.detected.digits + found.detected.signs, len(found.detected.digits)
    digits = []
    for index, digit in chosen:
        if index < count:
            probabilities, is_digit = found.probabilities[index], found.is_digit[index]
        else:
            classes = peaks.classes[index, :SIGN]
            probabilities, is_digit = classes / classes.sum(), peaks.scores[index]
        values = tuple(probabilities.tolist())
        box = found.detected.page.to_picture(peaks.boxes[index])
        both = _opinions(found, index) if opinions and index < count else None
        digits.append(Digit(digit, values[digit], values, box, is_digit=float(is_digit), opinions=both))
    return tuple(digits)


def _glyph(found: FoundLines, index: int) -> NDArray[np.uint8]:
    """Return the crop of a peak, by its index as in `_digits`."""
    detected = found.detected
    if index < len(detected.digits):
        return detected.glyphs[index]
    return crop_digit(detected.page, detected.signs.boxes[index - len(detected.digits)])


def _opinions(found: FoundLines, index: int) -> Opinions:
    """Return the digit that each network alone sees. The uniform classes of a lone digit don't count."""
    classes = found.detected.digits.classes[index, :SIGN]
    by_reader = _opinion((classes / classes.sum()).tolist()) if np.ptp(classes) else None
    return Opinions(_opinion(found.predictions[index].probabilities), by_reader)


def _opinion(probabilities: Sequence[float]) -> Opinion:
    confidence = max(probabilities)
    return Opinion(probabilities.index(confidence), confidence, tuple(probabilities))


def _separators(found: FoundLines) -> list[list[NDArray[np.float32]]]:
    """Return the boxes of the signs and slashes on each line of digits, from left to right."""
    separators: list[list[NDArray[np.float32]]] = [[] for _ in found.lines]
    boxes = found.detected.digits.boxes
    marks = np.concatenate((found.sure_signs().boxes, boxes[found.slashes])) if found.lines else boxes[:0]
    for sign in marks[np.argsort(marks[:, 0], kind="stable")]:
        shares = [common_rows(boxes[line], sign[np.newaxis]).max() for line in found.lines]
        if max(shares) > THRESHOLDS.min_common_rows:
            separators[shares.index(max(shares))].append(sign)
    return separators


def _line(text: str, confidence: float, digits: tuple[Digit, ...], separators: tuple[Box, ...]) -> Line:
    return Line(text, enclose([digit.box for digit in digits]), digits, separators, confidence=confidence)


def _join(candidates: tuple[Candidate, Candidate]) -> Candidate:
    """Return the candidate of two texts, one above the other."""
    above, line = candidates
    return Candidate(f"{above.text}\n{line.text}", above.probability * line.probability)


def _text(symbols: Iterable[tuple[int, NDArray[np.float32]]]) -> str:
    """Return the digits among symbols and their boxes, with a space in each wide gap without a sign."""
    text = ""
    last: tuple[float, float] | None = None
    middles = ((left + width / 2, height, symbol) for symbol, (left, _, width, height) in symbols)
    for middle, height, symbol in sorted(middles, key=itemgetter(0)):
        if symbol == SIGN:
            last = None
            continue
        if last and middle - last[0] > THRESHOLDS.max_pitch * max(last[1], height):
            text += " "
        text += str(symbol)
        last = middle, height
    return text
