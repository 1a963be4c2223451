"""Tables of results."""

from pathlib import Path
from typing import Any

import pytest

from digit_client import to_arrow
from digit_core.artifact.task_card import DIGIT_LABELS
from digit_core.errors import NotAnImageError
from digit_core.results import Candidate, Prediction, Reading


def prediction(confidence: float, is_digit: float, refusal: str | None = None) -> Prediction:
    shares = (confidence, *((1 - confidence) / 9,) * 9)
    return Prediction(0, confidence, shares, DIGIT_LABELS, 7, is_digit=is_digit, refusal=refusal)


def test_to_arrow_has_a_row_for_each_result_and_begins_with_the_least_sure_if_asked() -> None:
    results: list[Any] = [
        prediction(0.9, 1.0),
        prediction(1.0, 0.5),
        NotAnImageError("the file is a text"),
        FileNotFoundError("gone"),
        prediction(0.9, 0.1, "no_digit"),
    ]
    rows = to_arrow(results, ["a", Path("b"), "c", "d", b"bytes"]).to_pylist()
    assert [row["path"] for row in rows] == ["a", "b", "c", "d", None]
    assert [row["label"] for row in rows] == ["0", "0", None, None, None]
    assert [row["error_code"] for row in rows] == [None, None, "not_an_image", "not_found", None]
    assert (rows[0]["version"], rows[2]["version"], rows[4]["refusal"]) == (7, None, "no_digit")
    doubtful = to_arrow(results, "abcde", sort="doubtful")
    assert doubtful["path"].to_pylist() == ["c", "d", "e", "b", "a"]


def test_to_arrow_of_readings_has_their_candidates_and_a_row_for_each_part() -> None:
    def reading(text: str, confidence: float, **given: Any) -> Reading:
        return Reading(text, (), 7, confidence=confidence, candidates=(Candidate(text, confidence),), **given)

    results = [reading("1", 0.9), reading("", 0.4, refusal="unsure"), reading("3", 0.5), reading("4", 0.6)]
    table = to_arrow(results, ["a", "b"], sort="doubtful")
    assert table["path"].to_pylist() == ["a", "b", "b", "a"]
    assert table["text"].to_pylist() == ["", "3", "4", "1"]
    assert table["refusal"][0].as_py() == "unsure"
    assert table["candidates"][3].as_py() == [{"text": "1", "probability": 0.9}]
    with pytest.raises(ValueError, match="4 results are not those of 3 pictures"):
        to_arrow(results, ["a", "b", "c"])
