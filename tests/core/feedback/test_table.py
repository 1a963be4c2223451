"""Feedback table without a database."""

from digit_core.feedback.table import is_held_out


def test_held_out_inputs_are_a_fifth_of_all_and_others_with_another_key() -> None:
    first, second = ({number for number in range(5000) if is_held_out(key, f"{number}")} for key in "ab")
    assert 900 < len(first) < 1100
    assert 130 < len(first & second) < 270
