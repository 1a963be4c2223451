"""Votes: which label counts of an input that was sent several times, or that callers label differently."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Votes:
    """Labels of inputs, each of which has one vote a caller.

    `decided` has the row of each input's label, and True if the input is held out; `conflicts` the number of
    inputs left out, whose votes differ; `by_caller` the rows that are a caller's votes.
    """

    decided: list[tuple[Any, bool]]
    conflicts: int
    by_caller: dict[str, list[Any]]


def count_votes(rows: Iterable[Any]) -> Votes:
    """Return the label of each input.

    The rows have `digest`, `caller`, `label`, `labelled_at`, `source` and `held_out`. A caller's vote is its
    newest label of the input. Labels by hand, of people who may label, have precedence over those of callers.
    """
    copies: dict[str, list[Any]] = {}
    for row in rows:
        copies.setdefault(row.digest, []).append(row)
    decided, by_caller, conflicts = [], dict[str, list[Any]](), 0
    for same in copies.values():
        newest = {row.caller: row for row in sorted(same, key=lambda row: row.labelled_at)}
        for caller, row in newest.items():
            by_caller.setdefault(caller, []).append(row)
        deciding = [row for row in newest.values() if row.source == "label"] or [*newest.values()]
        if len({row.label for row in deciding}) > 1:
            conflicts += 1
        else:
            is_held_out = any(row.held_out for row in same)
            decided.append((max(deciding, key=lambda row: row.labelled_at), is_held_out))
    return Votes(decided, conflicts, by_caller)
