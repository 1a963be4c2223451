"""Votes: the label of a picture that several callers label."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

HELD_OUT_PART = 5
"""One of this many labelled pictures is held out: it tests a model and never trains it."""


@dataclass(frozen=True, slots=True)
class Votes:
    """Labels of pictures by their digest, and the number of pictures whose callers don't agree."""

    labels: dict[str, str]
    conflicts: int


def count_votes(rows: Iterable[Any]) -> Votes:
    """Return the label of each picture.

    Each row has a `digest`, a `label`, a caller's vote or None, and a `hand_label`, that of a person who may
    label, or None. A hand label decides; otherwise at least two thirds of the callers who voted must agree.
    """
    given: dict[str, list[str]] = {}
    by_hand: dict[str, str] = {}
    for row in rows:
        if row.label is not None:
            given.setdefault(row.digest, []).append(row.label)
        if row.hand_label is not None:
            by_hand[row.digest] = row.hand_label
    agreed: dict[str, str] = {}
    for digest, labels in given.items():
        (label, count), *_ = Counter(labels).most_common(1)
        if 3 * count >= 2 * len(labels):
            agreed[digest] = label
    conflicts = len(given.keys() - agreed.keys() - by_hand.keys())
    return Votes(agreed | by_hand, conflicts)
