"""Feedback table without a database."""

from digit_core.artifact.feedback_table import is_held_out


def test_held_out_requests_are_a_fifth_of_all() -> None:
    held_out = sum(is_held_out(f"request-{number}") for number in range(5000))
    assert 900 < held_out < 1100
