"""Result files: schemas, atomic writes, and rows that go."""

import csv
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from digit_serving.errors import DigitServingError
from digit_serving.scoring.files import LISTING
from digit_serving.scoring.rows import PREDICTIONS, READINGS, ResultsFolder, Run

RUN = Run("/photos", "digits", 7, False)


BOX = {"left": 1, "top": 2, "width": 3, "height": 4}
DIGIT = {"digit": 0, "confidence": 0.25, "probabilities": [0.25, 0.75], "is_digit": 0.5, "box": BOX}
LINES = [{"text": "0", "confidence": 0.2, "box": BOX, "digits": [DIGIT]}] * 2


def table(*rows: dict[str, Any], schema: pa.Schema = PREDICTIONS) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema)


def prediction(path: str, etag: str = "1", code: str | None = None) -> dict[str, Any]:
    picture = {"path": path, "etag": etag, "model": "digits", "version": 7}
    if code:
        return {**picture, "error_code": code, "error": f'line one\n"{code}", two'}
    return {**picture, "label": "3", "digit": 3, "confidence": 0.1 + 0.2, "probabilities": [1 / 3, 1e-30]}


def listing(**etags: str) -> pa.Table:
    return table(*({"path": path, "etag": etag} for path, etag in etags.items()), schema=LISTING)


def read(results: ResultsFolder) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read_table(results.url).to_pylist()
    return rows


def parts(results: ResultsFolder) -> list[Path]:
    return list(Path(results.url).glob("part-*"))


def keys(results: ResultsFolder) -> list[tuple[str, str]]:
    return sorted((row["path"], row["etag"]) for row in read(results))


@pytest.fixture
def results(tmp_path: Path) -> ResultsFolder:
    return ResultsFolder(str(tmp_path / "results"))


@pytest.mark.parametrize(
    ("answer", "schema"),
    [(prediction("a"), PREDICTIONS), ({"path": "a", "etag": "1", "text": "0\n0", "lines": LINES}, READINGS)],
)
def test_write_read_returns_the_same_rows(
    results: ResultsFolder, answer: dict[str, Any], schema: pa.Schema
) -> None:
    rows = table(answer, prediction("ö,\n.png", code="unreadable"), schema=schema)
    results.write(rows)
    assert read(results) == rows.to_pylist()


@pytest.mark.parametrize(
    ("share", "expected"), [(0.3, ["c", "a"]), (0.001, ["c"]), (1, ["c", "a", "d", "b"])]
)
def test_write_doubtful_lists_the_least_sure_answers_first(
    results: ResultsFolder, share: float, expected: list[str]
) -> None:
    confidences = {
        "a": (0.5, None),
        "b": (0.9, 1.0),
        "c": (1.0, 0.25),
        "d": (0.8, None),
        "refused": (0.1, 0.1),
    }
    rows = [
        prediction(path) | {"confidence": value, "is_digit": is_digit}
        for path, (value, is_digit) in confidences.items()
    ]
    rows[-1] |= {"label": None, "refusal": "no_digit"}
    results.write(table(*rows, prediction("broken", code="unreadable")))
    path, count = results.write_doubtful(share, read=False)
    first, *lines = Path(path).read_text().splitlines()
    assert first == '"path","label","confidence","is_digit"'
    assert [line.split(",")[0].strip('"') for line in lines] == expected
    assert count == len(expected)
    assert len(read(results)) == 6


def test_write_doubtful_of_readings_begins_with_refused_ones_and_their_candidates(
    results: ResultsFolder,
) -> None:
    seen = [{"text": text, "probability": 0.4} for text in ("17\n4", "11")]
    rows: list[dict[str, Any]] = [
        {"path": "2", "text": "2", "confidence": 0.5, "candidates": None},
        {"path": "3", "text": "3", "confidence": 0.3, "candidates": seen[1:]},
        {"path": "none", "text": "", "confidence": 0.0, "refusal": "no_digit"},
        {"path": "unsure", "text": "", "confidence": 0.8, "refusal": "unsure", "candidates": seen},
        {"path": "unexpected", "text": "", "confidence": 0.6, "refusal": "unexpected", "candidates": seen},
    ]
    results.write(table(*({"etag": "1"} | row for row in rows), schema=READINGS))
    path, count = results.write_doubtful(0.5, read=True)
    with Path(path).open(newline="") as file:
        first, *lines = csv.reader(file)
    assert first == ["path", "text", "confidence", "candidates"]
    assert lines == [
        ["unexpected", "", "0.6", '["17\\n4", "11"]'],
        ["unsure", "", "0.8", '["17\\n4", "11"]'],
        ["3", "3", "0.3", '["11"]'],
    ]
    assert count == 3


def test_write_same_pictures_replaces_their_file(results: ResultsFolder) -> None:
    results.write(table(prediction("a", code="unreadable"), prediction("b")))
    results.write(table(prediction("a"), prediction("b")))
    assert len(parts(results)) == 1
    results.write(table(prediction("a", etag="2"), prediction("b")))
    assert len(parts(results)) == 2


def test_read_run_returns_what_was_written_or_none(results: ResultsFolder) -> None:
    assert results.read_run() is None
    assert results.tidy(listing(a="1"))[0].num_rows == 1
    results.write(table(prediction("a")))
    with pytest.raises(DigitServingError, match="no results of `digits score`"):
        results.read_run()
    results.write_run(RUN)
    assert results.read_run() == RUN
    assert parquet.read_table(results.url).num_rows == 1
    # As releases before expectations wrote it.
    old = '{"source": "/photos", "model": "digits", "version": 7, "read": false}'
    (Path(results.url) / "_score.json").write_text(old)
    assert results.read_run() == RUN
    (Path(results.url) / "_score.json").write_text("{")
    with pytest.raises(DigitServingError, match=r"_score\.json is damaged"):
        results.read_run()


def test_tidy_keeps_current_rows_and_returns_pictures_to_score(results: ResultsFolder) -> None:
    rows = [
        prediction("kept"),
        prediction("changed"),
        prediction("gone"),
        prediction("refused", code="not_an_image"),
        prediction("unanswered", code="deadline_exceeded"),
    ]
    results.write(table(*rows))
    results.write(table(prediction("gone too")))
    now = listing(kept="1", changed="2", refused="1", unanswered="1", added="1")
    pending, removed = results.tidy(now)
    assert pending["path"].to_pylist() == ["added", "changed", "unanswered"]
    assert removed == 2
    assert keys(results) == [("kept", "1"), ("refused", "1")]
    assert len(parts(results)) == 1


def test_tidy_keeps_one_row_of_each_picture_an_answer_rather_than_a_retryable_error(
    results: ResultsFolder,
) -> None:
    pictures = {f"picture {number}": "1" for number in range(20)}
    for name in pictures:
        # File names are hashes, so that either file may come first.
        results.write(table(prediction(name, code="unavailable"), prediction("gone")))
        results.write(table(prediction(name), prediction("picture 0")))
    assert len(results.tidy(listing(**pictures))[0]) == 0
    assert keys(results) == sorted(pictures.items())
    assert {row["error_code"] for row in read(results)} == {None}


def test_tidy_keeps_all_rows_of_a_form_or_none(results: ResultsFolder) -> None:
    def field(path: str, name: str, code: str | None = None) -> dict[str, Any]:
        return {"path": path, "etag": "1", "text": "17", "field": name, "error_code": code}

    rows = [field("whole", "date"), field("whole", "amount", "wrong_shape")]
    half = [field("half", "date"), field("half", "amount", "unavailable")]
    results.write(table(*rows, *half, schema=READINGS))
    results.write(table(*rows, *[field("one", "date")], schema=READINGS))
    pending, removed = results.tidy(listing(whole="1", half="1", one="1"), 2)
    assert (pending["path"].to_pylist(), removed) == (["half", "one"], 0)
    assert [(row["path"], row["field"]) for row in read(results)] == [("whole", "date"), ("whole", "amount")]


def test_tidy_damaged_file_raises_with_its_name(results: ResultsFolder) -> None:
    results.write(table(prediction("a")))
    (path,) = parts(results)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DigitServingError, match=f"has a damaged file; remove it.*{path.name}"):
        results.tidy(listing(a="1"))


def test_tidy_deletes_interrupted_writes_only(results: ResultsFolder) -> None:
    results.write(table(prediction("a")))
    results.write_run(RUN)
    before = {*Path(results.url).iterdir()}
    (Path(results.url) / ".part-1.parquet.0000.unfinished").write_bytes(b"half")
    results.tidy(listing(a="1"))
    assert {*Path(results.url).iterdir()} == before
