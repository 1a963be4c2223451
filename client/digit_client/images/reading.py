"""Reading: the digits of a picture, chosen among its candidates by the model's predictions."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from heapq import nlargest
from itertools import accumulate
from operator import or_

import numpy as np
from numpy.typing import NDArray

from digit_client._types import MIN_CONFIDENCE, MIN_IS_DIGIT, Box, Digit, Line, Prediction, Reading
from digit_client.images.boxes import contains, enclose, gaps
from digit_client.images.candidates import Candidate, Candidates, Layer


@dataclass(frozen=True, slots=True)
class ReadingConfig:
    """Thresholds of the choice. The score of a candidate is the confidence of its prediction, 0..1."""

    min_score: float = 0.15
    """Least score of a digit in a number."""
    cut_cost: float = 0.25
    """Cost of a piece, as a negative logarithm of a score: most digits are not cut."""
    min_height: float = 0.42
    """Least height of a digit, as a share of the median height of the digits: lower ones are signs."""
    min_slash_width: float = 0.25
    """Least width of a slash, as a share of its height."""
    min_slash_height: float = 1.2
    """Least height of a slash, as a multiple of its neighbours' height."""
    min_bar_height: float = 1.5
    """Least height of an upright bar, such as a cell's line, as a multiple of its neighbours' height."""
    min_gain: float = 1.05
    """Least ratio of the values of two masks at which the one of lower contrast is preferred."""
    min_line_overlap: float = 0.35
    """Least share of a digit's rows that the line before it covers, if it belongs to the line."""
    edge_share: float = 0.07
    """Distance from the picture's left or right edge within which strips lie, as a share of its width."""
    min_strip_ratio: float = 3.0
    """Least ratio of height to width of a strip at the picture's edge."""
    min_hairline_ratio: float = 8.0
    """Least ratio of height to width of a hairline; that of most handwritten 1s is lower."""
    max_strip_height: float = 1.2
    """Largest height of a 1 as narrow as a strip, as a multiple of the height of the highest other digit."""
    max_ones: int = 5
    """Largest number of 1s of a picture without other digits: more are a barcode or bricks."""
    min_mean_confidence: float = 0.8
    """Least mean confidence of a picture's digits, from a model with the output `is_digit`. The digit
    that `normalise` finds is accepted as by `/v1/predict`."""
    min_explained: float = 0.7
    """Least share of the ink that the digits cover."""
    min_component_explained: float = 0.7
    """Least share of a component's ink that belongs to the digits cut from it."""
    min_number: int = 3
    """Least number of digits of a number that may have signs such as # or a currency at its ends."""
    min_number_confidence: float = 0.95
    """Least mean confidence of such a number's digits."""
    max_sign_reach: float = 1.5
    """Largest distance of a sign's far end from the number, as a multiple of the number's height."""
    low_skip_cost: float = 0.25
    """Cost of leaving out a component that is too low for a digit, as a share of that of another one."""
    beam: int = 50
    """Number of partial choices that the search keeps."""


_CONFIG = ReadingConfig()


@dataclass(frozen=True, slots=True)
class _Glyph:
    """Candidate with its prediction, its score, and its share of the ink."""

    candidate: Candidate
    prediction: Prediction
    score: float
    share: float

    @property
    def box(self) -> Box:
        return self.candidate.box


def read(
    candidates: Candidates, predictions: Sequence[Prediction], min_is_digit: float = MIN_IS_DIGIT
) -> Reading:
    """Return the digits on the picture, in lines, from one prediction for each candidate.

    `min_is_digit` is the least `is_digit` of a digit that `normalise` finds alone on the picture; the mean
    confidence of other digits is at least that, too.
    """
    lines = [_line(glyphs) for glyphs in _lines(_best_glyphs(candidates, predictions, min_is_digit))]
    return Reading("\n".join(line.text for line in lines), tuple(lines), predictions[0].model_version)


def glyphs(
    reading: Reading, candidates: Candidates, predictions: Sequence[Prediction]
) -> list[NDArray[np.uint8]]:
    """Return the model's input of each digit of the reading, uint8 [28, 28], in reading order."""
    # Equal probabilities mean equal glyphs.
    indexes = {prediction.probabilities: index for index, prediction in enumerate(predictions)}
    return [candidates.glyphs[indexes[digit.probabilities]] for digit in reading.digits]


def digit_indexes(
    candidates: Candidates, predictions: Sequence[Prediction], min_is_digit: float = MIN_IS_DIGIT
) -> list[int]:
    """Return the indexes of the glyphs that are the digits on the picture, as `read` finds them."""
    return [glyph.candidate.glyph for glyph in _best_glyphs(candidates, predictions, min_is_digit)]


def _best_glyphs(
    candidates: Candidates, predictions: Sequence[Prediction], min_is_digit: float
) -> list[_Glyph]:
    """Return the digits of the mask whose digits are the most certain."""
    best: list[_Glyph] = []
    best_value = 0.0
    width = candidates.size[1]
    for layer in candidates.layers:
        glyphs = _without_fragments(_select(layer, predictions), layer)
        glyphs = _without_strips(_without_signs(glyphs), width)
        value = _value(glyphs, layer, width, min_is_digit)
        if value > _CONFIG.min_gain * best_value:
            best, best_value = glyphs, value
    return best


def _value(glyphs: list[_Glyph], layer: Layer, width: int, min_is_digit: float) -> float:
    """Return the mean confidence times the square root of the share of ink that the glyphs explain.

    The value is 0 for a picture without a number: unsure glyphs, other ink, or parallel bars.
    """
    if not glyphs or (len(glyphs) > _CONFIG.max_ones and {glyph.prediction.index for glyph in glyphs} == {1}):
        return 0.0
    confidence = _mean_confidence(glyphs)
    if len(glyphs) == 1 and glyphs[0].candidate.is_lone:
        is_sure = glyphs[0].prediction.looks_like_digit(min_is_digit)
    else:
        has_is_digit = glyphs[0].prediction.is_digit is not None
        least = max(_CONFIG.min_mean_confidence, min_is_digit) if has_is_digit else MIN_CONFIDENCE
        is_sure = confidence >= least
    explained = _explained(glyphs, layer, width)
    if not is_sure or explained < _CONFIG.min_explained:
        return 0.0
    return confidence * math.sqrt(explained)


def _mean_confidence(glyphs: list[_Glyph]) -> float:
    return sum(glyph.prediction.confidence for glyph in glyphs) / len(glyphs)


def _explained(glyphs: list[_Glyph], layer: Layer, width: int) -> float:
    """Return the share of ink that belongs to the glyphs, without signs, strips and frames around glyphs."""
    atoms = reduce(or_, (glyph.candidate.atoms for glyph in glyphs))
    number = enclose(glyph.box for glyph in glyphs)
    is_certain = (
        len(glyphs) >= _CONFIG.min_number and _mean_confidence(glyphs) >= _CONFIG.min_number_confidence
    )
    least = _CONFIG.min_height * max(glyph.box[3] for glyph in glyphs)
    explained = total = 0.0
    for atom, (share, owner) in enumerate(zip(layer.shares, layer.owners, strict=True)):
        box = layer.components[owner]
        if atoms >> atom & 1:
            explained += share
        elif (
            box[3] < least
            or _is_strip(box, width)
            or any(contains(box, glyph.box) for glyph in glyphs)
            or (is_certain and _is_at_end(box, number))
        ):
            continue
        total += share
    return explained / total


def _is_at_end(box: Box, number: Box) -> bool:
    """True for a sign on the number's line, at its left or right end."""
    reach = _CONFIG.max_sign_reach * number[3]
    middle = box[0] + box[2] / 2
    is_outside = not number[0] <= middle <= number[0] + number[2]
    is_near = box[0] >= number[0] - reach and box[0] + box[2] <= number[0] + number[2] + reach
    return is_outside and is_near and gaps(box, number)[1] < 0


def _select(layer: Layer, predictions: Sequence[Prediction]) -> list[_Glyph]:
    """Return the disjoint candidates with the highest product of scores.

    Beam search over the atoms from left to right. An atom that belongs to no digit costs as much as a digit
    of the least score, in proportion to its share of its component.
    """
    glyphs = _glyphs_by_atom(layer, predictions)
    skip_costs = _skip_costs(layer)
    # Best value and glyphs by the bit set of the next atoms that are used.
    states: dict[int, tuple[float, tuple[_Glyph, ...]]] = {0: (0.0, ())}
    for atom, skip_cost in enumerate(skip_costs):
        options: dict[int, tuple[float, tuple[_Glyph, ...]]] = {}
        for used, (value, chosen) in states.items():
            _keep_better(options, used >> 1, value - (0.0 if used & 1 else skip_cost), chosen)
            if used & 1:
                continue
            for glyph in glyphs.get(atom, ()):
                atoms = glyph.candidate.atoms >> atom
                if not atoms & used:
                    cost = _CONFIG.cut_cost if glyph.candidate.is_piece else 0.0
                    total = value + math.log(glyph.score) - cost
                    _keep_better(options, (used | atoms) >> 1, total, (*chosen, glyph))
        best = nlargest(_CONFIG.beam, options.items(), key=lambda option: option[1][0])
        states = dict(best)
    _, chosen = max(states.values(), key=lambda state: state[0])
    return list(chosen)


def _keep_better(
    options: dict[int, tuple[float, tuple[_Glyph, ...]]], used: int, value: float, chosen: tuple[_Glyph, ...]
) -> None:
    if used not in options or options[used][0] < value:
        options[used] = value, chosen


def _glyphs_by_atom(layer: Layer, predictions: Sequence[Prediction]) -> dict[int, list[_Glyph]]:
    """Return the candidates that can be digits, by their first atom."""
    glyphs: dict[int, list[_Glyph]] = {}
    for candidate in layer.candidates:
        prediction = predictions[candidate.glyph]
        score = _score(prediction)
        if score >= _CONFIG.min_score:
            atoms = _bits(candidate.atoms)
            share = sum(layer.shares[atom] for atom in atoms)
            glyphs.setdefault(atoms[0], []).append(_Glyph(candidate, prediction, score, share))
    return glyphs


def _skip_costs(layer: Layer) -> list[float]:
    """Return the cost of each atom that belongs to no digit; a low component, such as a rule, costs less."""
    inks = _component_inks(layer)
    least = _CONFIG.min_height * max((height for *_, height in layer.components), default=0)
    factors = [_CONFIG.low_skip_cost if height < least else 1.0 for *_, height in layer.components]
    return [
        -math.log(_CONFIG.min_score) * factors[owner] * share / max(inks[owner], 1e-9)
        for share, owner in zip(layer.shares, layer.owners, strict=True)
    ]


def _component_inks(layer: Layer) -> dict[int, float]:
    """Return each component's share of the ink."""
    inks: dict[int, float] = {}
    for share, owner in zip(layer.shares, layer.owners, strict=True):
        inks[owner] = inks.get(owner, 0.0) + share
    return inks


def _score(prediction: Prediction) -> float:
    """Return the confidence; its root for a model without `is_digit`, which has to be lenient."""
    return prediction.confidence if prediction.is_digit is not None else math.sqrt(prediction.confidence)


def _bits(atoms: int) -> list[int]:
    return [bit for bit in range(atoms.bit_length()) if atoms >> bit & 1]


def _without_fragments(glyphs: list[_Glyph], layer: Layer) -> list[_Glyph]:
    """Leave out pieces of a component that is no number: one that is only explained in part, or as 1s alone.

    Many letters and drawings have a straight stroke, which resembles a 1.
    """
    pieces: dict[int, list[_Glyph]] = {}
    for glyph in glyphs:
        if glyph.candidate.is_piece:
            pieces.setdefault(layer.owners[_bits(glyph.candidate.atoms)[0]], []).append(glyph)
    inks = _component_inks(layer)
    fragments = [
        glyph
        for owner, members in pieces.items()
        for glyph in members
        if sum(member.share for member in members) < _CONFIG.min_component_explained * inks[owner]
        or all(member.prediction.index == 1 for member in members)
    ]
    return [glyph for glyph in glyphs if glyph not in fragments]


def _without_signs(glyphs: list[_Glyph]) -> list[_Glyph]:
    """Leave out frames around other glyphs, glyphs much lower than the others, and slashes."""
    inner = [
        glyph
        for glyph in glyphs
        if not any(other is not glyph and contains(glyph.box, other.box) for other in glyphs)
    ]
    if not inner:
        return inner
    # Points, commas, dashes and specks are low.
    least = _CONFIG.min_height * _median_height(inner)
    tall = [glyph for glyph in inner if glyph.box[3] >= least]
    return [glyph for line in _lines(tall) for glyph in _without_slashes(line)]


def _without_strips(glyphs: list[_Glyph], width: int) -> list[_Glyph]:
    """Leave out strips that are far from all digits or higher: remains of rules, a table beside a sheet."""
    others = [glyph for glyph in glyphs if not _is_strip(glyph.box, width)]
    highest = _CONFIG.max_strip_height * max((other.box[3] for other in others), default=0)
    return [
        glyph
        for glyph in glyphs
        if not others
        or glyph in others
        or (
            glyph.box[3] <= highest
            and any(max(gaps(glyph.box, other.box)) < other.box[3] for other in others)
        )
    ]


def _is_strip(box: Box, width: int) -> bool:
    """True for a hairline, and for a vertical bar at the left or right edge of a picture of this width."""
    margin = _CONFIG.edge_share * width
    is_at_edge = not margin < box[0] + box[2] / 2 < width - margin
    ratio = _CONFIG.min_strip_ratio if is_at_edge else _CONFIG.min_hairline_ratio
    return box[3] > ratio * box[2]


def _median_height(glyphs: list[_Glyph]) -> int:
    """Return the median weighted by ink, since specks may outnumber digits; there is at least one glyph."""
    by_height = sorted(glyphs, key=lambda glyph: glyph.box[3])
    shares = list(accumulate(glyph.share for glyph in by_height))
    return by_height[bisect_left(shares, shares[-1] / 2)].box[3]


def _without_slashes(line: list[_Glyph]) -> list[_Glyph]:
    """Leave out slashes: a 1 between digits that is higher than both, slanted or much higher."""
    kept = list(line)
    for before, glyph, after in zip(line, line[1:], line[2:], strict=False):
        _, top, width, height = glyph.box
        is_slanted = width > _CONFIG.min_slash_width * height
        least = _CONFIG.min_slash_height if is_slanted else _CONFIG.min_bar_height
        is_higher = all(
            top <= other.box[1] and top + height >= other.box[1] + other.box[3] for other in (before, after)
        )
        if glyph.prediction.index == 1 and is_higher and height > least * max(before.box[3], after.box[3]):
            kept.remove(glyph)
    return kept


def _lines(glyphs: list[_Glyph]) -> list[list[_Glyph]]:
    """Group glyphs into lines, from top to bottom, each from left to right.

    A glyph continues the line whose last glyph's rows overlap it most, so that lines may slant.
    """
    lines: list[list[_Glyph]] = []
    for glyph in sorted(glyphs, key=lambda item: item.box[0]):
        overlaps = [_overlap(line[-1].box, glyph.box) for line in lines]
        if overlaps and max(overlaps) > _CONFIG.min_line_overlap:
            lines[overlaps.index(max(overlaps))].append(glyph)
        else:
            lines.append([glyph])
    return sorted(lines, key=lambda line: sum(item.box[1] + item.box[3] / 2 for item in line) / len(line))


def _overlap(box: Box, other: Box) -> float:
    """Return the common rows as a share of the lower box's height."""
    common = min(box[1] + box[3], other[1] + other[3]) - max(box[1], other[1])
    return common / max(1, min(box[3], other[3]))


def _line(glyphs: list[_Glyph]) -> Line:
    digits = tuple(
        Digit(glyph.prediction.index, glyph.prediction.confidence, glyph.prediction.probabilities, glyph.box)
        for glyph in glyphs
    )
    text = "".join(str(digit.digit) for digit in digits)
    return Line(text, enclose(digit.box for digit in digits), digits)
