"""Thresholds of reading, all of them.

They were chosen by the pictures of `python -m benchmarks.numbers`, on which no network was fitted;
`docs/explanation/accuracy.md` says what they reach. `python -m benchmarks.priors` counts the probabilities of
peaks, signs and gaps. The weights of a line's certainty are fitted, and belong to a version of the reader.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Thresholds of reading.

    Scores, shares and probabilities are in 0..1. A cost is the negative logarithm of a probability.
    """

    # Digits, by both networks.
    min_score: float = 0.4
    """Least score of a digit of which the reader alone is sure."""
    neutral_score: float = 0.92
    """Score of a digit that leaves the model's odds as they are; a higher one raises them."""
    neutral_score_alone: float = 0.72
    """Score of a digit that leaves the odds even where a neighbour covers so much of the digit that the model
    has no weight."""
    least_doubt: float = 1e-4
    """Least doubt of a network: probabilities are clipped to this distance from 0 and 1."""
    min_same_overlap: float = 0.7
    """Intersection over union above which two peaks are one thing, seen at two levels of the pyramid."""
    max_covered: float = 0.6
    """Largest share of a digit's box that another digit's covers. The model's weight falls to 0 up to there,
    because its crop shows both digits."""
    rival_weight: float = 0.5
    """Weight of the model between rivals: it sees their crops only, and a part of a digit may be another."""

    # Lines.
    min_common_rows: float = 0.35
    """Least share of the lower box's rows that two boxes of a line have in common."""
    max_distance: float = 1.5
    """Largest distance of a box from the ends of a line, as a multiple of the median height of its digits."""
    max_pitch: float = 2.2
    """Largest distance of the middles of two digits of a number, as a multiple of the higher one's height."""
    min_line_score: float = 0.2
    """Least score of a weak peak that is a digit because it completes a line of two or more sure ones."""
    min_line_is_digit: float = 0.007
    """Least probability, by both networks, that such a peak is a digit: the model refuses plain strokes and
    0s."""
    min_line_height: float = 0.6
    """Least height of such a peak, as a multiple of the median height of the line's digits."""
    max_line_height: float = 1.35
    """Largest height of such a peak, as a multiple of the same."""
    max_line_covered: float = 0.35
    """Largest share of such a peak's box that a digit of the line covers."""
    min_slash: float = 0.1
    """Least probability of a sign that the reader gives a 1 that is a slash of a date."""

    # Texts, by Viterbi's algorithm.
    min_weak_score: float = 0.08
    """Least score of a peak that may be a digit of a line if something else is expected than was read.

    An exported reader's graph returns no peak of its own floor or less, 0.05 (`MIN_SCORE` in
    `digit_training/finder.py`): for a lower value here, export the reader with a lower floor.
    """
    max_present: float = 0.99
    """Probability that a digit of a line is there. That of another peak is its score, at most this."""
    missed_sign: float = 0.01
    """Probability that a sign between digits is not seen, beside that of such a gap within a number."""
    missed_in_gap: float = 0.5
    """The same in a gap wider than the line's first quartile by `wide_gap`: a space parts as a sign does."""
    wide_gap: float = 0.25
    """Multiple of the height of the line's digits, from which more gaps part numbers than not."""
    whole_amount: float = 0.2
    """Prior probability that an amount has no decimals: assumed, as it depends on the caller."""
    max_cost: float = 10.0
    """Largest cost of a text beyond that of the line's most probable symbols: nobody means a dearer one."""
    max_others: int = 128
    """Largest number of weak peaks, and of signs, that the lines of a page share."""
    max_states: int = 20
    """Largest number of states at a place, the best ones: noise could be anything."""
    max_arcs: int = 250
    """Largest number of arcs that are followed from the states of a place, from the best state on."""
    max_candidates: int = 5
    """Largest number of texts that are found, and of candidates of a reading."""
    min_candidate: float = 0.005
    """Least probability of a candidate other than a line's text."""
    unknown: float = 0.1
    """Prior probability that a line is not as expected, or is none of the texts that were found: assumed, as
    it depends on the caller."""
    min_density: float = 0.003
    """Least density of an expectation: numbers in use are alike, and so denser than their share."""
    min_expected: float = 0.5
    """Least probability of an expected text: it is more probable than all others together."""
    min_valid: float = 20 / 21
    """The same where the number must be valid: the text is 20 times as probable as all others that fit."""

    # Recognition: which network is asked next.
    sure: float = 0.5
    """Least certainty at which a view of a low resolution decides, as small digits of a number may leave one
    digit there; least score of a digit that speaks for a page's orientation."""
    sure_alone: float = 0.88
    """Least certainty at which one network needs no other: the model for all ink of a picture as one digit,
    which may be cut off or broken for the reader, and for the part that the reader found."""
    sure_number: float = 0.8
    """Least confidence of a number from which its page is upright."""
    min_turned: float = 3.5
    """Least mean log-odds of the digits of a turned page, beyond those of the page as sent."""
    rotated_side: int = 256
    """Longest side, in pixels, of a page that is rotated to see if it shows a number then."""


THRESHOLDS = Thresholds()
