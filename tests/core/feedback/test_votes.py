"""Votes on pictures."""

from collections import namedtuple

import pytest

from digit_core.feedback.votes import count_votes

Row = namedtuple("Row", "digest label hand_label", defaults=(None,))


@pytest.mark.parametrize(
    ("labels", "label"),
    [
        ("7", "7"),
        ("77777", "7"),
        # One dissenting key does not void five that agree.
        ("177777", "7"),
        ("771", "7"),
        ("71", None),
        ("7711", None),
        ("77112", None),
    ],
)
def test_count_votes_takes_the_label_of_two_thirds_of_the_callers(labels: str, label: str | None) -> None:
    votes = count_votes([*(Row("x", vote) for vote in labels), Row("y", "3")])
    assert votes.labels == ({"x": label} if label else {}) | {"y": "3"}
    assert votes.conflicts == (label is None)


def test_count_votes_label_by_hand_has_precedence() -> None:
    votes = count_votes([Row("x", "1"), Row("x", "2", "5"), Row("y", None, ""), Row("z", None)])
    assert votes.labels == {"x": "5", "y": ""}
    assert votes.conflicts == 0
