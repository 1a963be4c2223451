"""Votes on inputs."""

from collections import namedtuple
from datetime import UTC, datetime, timedelta
from typing import Any

from digit_core.votes import count_votes

START = datetime(2026, 11, 1, tzinfo=UTC)

Row = namedtuple("Row", "digest caller label labelled_at source held_out")


def vote(digest: str, caller: str, label: str, minute: int = 0, **fields: Any) -> Any:
    return Row(
        digest,
        caller,
        label,
        START + timedelta(minutes=minute),
        fields.get("source", "feedback"),
        fields.get("held_out", False),
    )


def test_count_votes_takes_the_newest_label_of_each_caller() -> None:
    votes = count_votes(
        [vote("x", "ann", "1", 0), vote("x", "ann", "7", 2), vote("x", "ann", "2", 1), vote("y", "eve", "3")]
    )
    assert [row.label for row, _ in votes.decided] == ["7", "3"]
    assert votes.conflicts == 0
    assert {caller: len(rows) for caller, rows in votes.by_caller.items()} == {"ann": 1, "eve": 1}


def test_count_votes_leaves_out_and_counts_inputs_whose_votes_differ() -> None:
    honest = [vote(f"{number}", "ann", "1") for number in range(40)]
    resent = [vote(f"{number}", "eve", "2", minute) for minute in range(1, 4) for number in range(40)]
    votes = count_votes([*honest, *resent, vote("else", "eve", "3")])
    assert [row.digest for row, _ in votes.decided] == ["else"]
    assert votes.conflicts == 40
    assert [row.label for row, _ in count_votes(honest).decided] == ["1"] * 40


def test_count_votes_label_by_hand_has_precedence() -> None:
    by_hand = vote("x", "ann", "5", source="label")
    votes = count_votes([vote("x", "eve", "1", 9), by_hand, vote("x", "bob", "2", 9)])
    assert [row for row, _ in votes.decided] == [by_hand]


def test_count_votes_input_is_held_out_if_one_of_its_rows_is() -> None:
    votes = count_votes([vote("x", "ann", "1"), vote("x", "bob", "1", held_out=True)])
    assert [is_held_out for _, is_held_out in votes.decided] == [True]
