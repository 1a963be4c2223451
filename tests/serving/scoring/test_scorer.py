"""Scorer with real images and a model server in this process."""

import pickle
from operator import itemgetter
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from digit_client import ModelServerClient
from digit_core.artifact.task_card import CardInput, TaskCard
from digit_core.errors import ImageError
from digit_core.images import to_png
from digit_serving.scoring import files
from digit_serving.scoring.rows import PREDICTIONS, READINGS
from digit_serving.scoring.scorer import Scorer
from tests.core.drawn_numbers import draw_lines
from tests.core.linear_model_server import LinearModelServer

ANSWERS = ("label", "digit", "refusal", "confidence", "is_digit", "count", "probabilities")


@pytest.fixture
def folder(digits: Any, tmp_path: Path) -> Path:
    """Ten digits, a blank picture, and damaged files."""
    for label in range(10):
        (tmp_path / f"{label}.png").write_bytes(to_png(digits.one(label)))
    (tmp_path / "blank.png").write_bytes(to_png(np.zeros((40, 40), np.uint8)))
    (tmp_path / "no-picture.png").write_bytes(b"no picture")
    (tmp_path / "truncated.png").write_bytes(to_png(digits.one(1))[:80])
    (tmp_path / "empty[1].png").write_bytes(b"")
    return tmp_path


def score(folder: Path, target: str, **options: Any) -> dict[str, dict[str, Any]]:
    """Return the rows of the folder's images by their names."""
    images, _ = files.list_images(str(folder))
    rows = Scorer(str(folder), target, **{"model": "digits", "version": 1, **options})(images)
    assert rows.schema == (READINGS if options.get("read") else PREDICTIONS)
    return {Path(row["path"]).name: row for row in rows.to_pylist()}


def test_score_equals_predict_many(folder: Path, server: LinearModelServer, digits: Any) -> None:
    (folder / "page.png").write_bytes(to_png(draw_lines([digits.one(4), digits.one(2)])))
    (folder / "large.png").write_bytes(to_png(draw_lines([digits.one(4)])))
    rows = score(folder, server.target)
    with ModelServerClient(server.target) as client:
        expected = client.predict_many([folder / name for name in rows])
    for row, outcome in zip(rows.values(), expected, strict=True):
        error = (outcome.code, outcome.message) if isinstance(outcome, ImageError) else (None, None)
        assert (row["error_code"], row["error"]) == error
        for name in ANSWERS:
            value = getattr(outcome, name, None)
            assert row[name] == ([*value] if isinstance(value, tuple) else value)
        assert (row["model"], row["version"]) == ("digits", 1)
        box = getattr(outcome, "box", None)
        assert row["box"] == (box and dict(zip(("left", "top", "width", "height"), box, strict=True)))
    assert {row["digit"] for row in rows.values()} == {None, *range(10)}
    assert (rows["page.png"]["refusal"], rows["page.png"]["count"]) == ("several_digits", 2)


def test_score_vanished_file_is_a_row(folder: Path, server: LinearModelServer) -> None:
    images, _ = files.list_images(str(folder))
    (folder / "3.png").unlink()
    (folder / "4.png").unlink()
    (folder / "4.png").mkdir()
    rows = Scorer(str(folder), server.target, "digits", 1)(images).to_pylist()
    codes = {Path(row["path"]).name: (row["error_code"], row["digit"]) for row in rows}
    assert (codes["3.png"], codes["4.png"]) == (("not_found", None), ("unreadable", None))
    assert codes["5.png"] == (None, 5)


def test_score_failed_call_is_an_error_of_its_pictures(folder: Path, server: LinearModelServer) -> None:
    # A failed call is repeated with fewer pictures.
    server.failures = [grpc.StatusCode.INTERNAL] * 100
    try:
        rows = score(folder, server.target)
    finally:
        server.failures = []
    assert (rows["1.png"]["error_code"], rows["1.png"]["version"]) == ("service_error", 1)


def test_scorer_keeps_the_order_also_pickled(folder: Path, server: LinearModelServer) -> None:
    images, _ = files.list_images(str(folder))
    repeated = images.take(list(range(len(images))) * 20)
    scorer = Scorer(str(folder), server.target, "digits", 1)
    rows = scorer(repeated)
    assert rows.select(files.LISTING.names).equals(repeated)
    again = pickle.loads(pickle.dumps(scorer))(images)
    assert again["label"].to_pylist() == rows["label"].to_pylist()[: len(images)]


def test_score_labels_that_are_no_digits_have_no_digit(tmp_path: Path) -> None:
    task = TaskCard("colors", ("dark", "light"), CardInput((4, 4), (0.0, 1.0)))
    pixels = np.stack([np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8)])
    (tmp_path / "a.png").write_bytes(to_png(pixels[1]))
    with LinearModelServer(pixels, np.array([0, 1], np.uint8), task=task) as server:
        row = score(tmp_path, server.target, model="colors")["a.png"]
    assert (row["label"], row["digit"], row["is_digit"]) == ("light", None, None)


def test_score_form_has_a_row_for_each_field(tmp_path: Path, server: LinearModelServer, digits: Any) -> None:
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(to_png(draw_lines([digits.one(4), digits.one(2)])))
    (tmp_path / "none.png").write_bytes(b"no picture")
    form: dict[str, Any] = {
        "left": {"box": [40, 0, 80, 160], "expect": ["4", "7"]},
        "far": {"box": [900, 0, 8, 8]},
        "right": {"box": [120, 0, 80, 160]},
    }
    images, _ = files.list_images(str(tmp_path))
    options = {"form": form}
    scored = Scorer(str(tmp_path), server.target, "digits", 1, read=True, options=options)(images)
    rows = sorted(scored.to_pylist(), key=itemgetter("path"))
    assert [(Path(row["path"]).name, row["field"]) for row in rows] == [
        (name, field) for name in ("a.png", "b.png", "none.png") for field in form
    ]
    assert [(row["text"], row["error_code"]) for row in rows] == [
        *[("4", None), (None, "wrong_shape"), ("2", None)] * 2,
        *[(None, "not_an_image")] * 3,
    ]
    assert [*rows[0]["box"].values()] == form["left"]["box"]


def test_score_read_returns_numbers_with_boxes(folder: Path, server: LinearModelServer, digits: Any) -> None:
    (folder / "page.png").write_bytes(to_png(draw_lines([digits.one(4), digits.one(2)])))
    rows = score(folder, server.target, read=True)
    with ModelServerClient(server.target) as client:
        expected = client.read(folder / "page.png")
    (line,) = rows["page.png"]["lines"]
    assert rows["page.png"]["text"] == line["text"] == expected.text
    assert tuple(line["box"].values()) == expected.lines[0].box
    found = [(digit["digit"], tuple(digit["box"].values())) for digit in line["digits"]]
    assert found == [(each.digit, each.box) for each in expected.digits]
    assert [tuple(box.values()) for box in line["separators"]] == [*expected.lines[0].separators]
    expecting = {"expect": ["42", "17"], "min_confidence": 0.1}
    expected_rows = score(folder, server.target, read=True, options=expecting)
    assert (expected_rows["page.png"]["text"], expected_rows["3.png"]["refusal"]) == ("42", "unexpected")
    assert expected_rows["3.png"]["candidates"][0]["text"] == "3"
    blank = rows["blank.png"]
    assert (blank["text"], blank["refusal"], blank["error_code"]) == ("", "no_digit", None)
