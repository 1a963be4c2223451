"""Scorer with real images and a model server in this process."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from digit_client import ModelServerClient
from digit_core.artifact.task_card import TaskCard
from digit_core.errors import ImageError
from digit_core.images import to_png
from digit_serving.scoring import files
from digit_serving.scoring.results import PREDICTIONS, READINGS
from digit_serving.scoring.scorer import Scorer
from tests.core.drawn_numbers import draw_lines
from tests.core.linear_model_server import LinearModelServer

ANSWER_COLUMNS = ("label", "digit", "refusal", "confidence", "is_digit", "probabilities")


@pytest.fixture(scope="module")
def server(digits: Any) -> Iterator[LinearModelServer]:
    with LinearModelServer(digits.images[:1000], digits.labels[:1000], with_is_digit=True) as server:
        yield server


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
    scorer = Scorer(str(folder), target, "digits", 1, **options)
    rows = scorer(files.list_images(str(folder)).images)
    return {Path(row["path"]).name: row for row in rows.to_pylist()}


def test_score_equals_predict_many(folder: Path, server: LinearModelServer) -> None:
    rows = score(folder, server.target)
    with ModelServerClient(server.target) as client:
        expected = client.predict_many([folder / name for name in rows])
    for row, outcome in zip(rows.values(), expected, strict=True):
        if isinstance(outcome, ImageError):
            assert (row["error_code"], row["error"]) == (outcome.code, outcome.message)
            assert not any(row[name] for name in ANSWER_COLUMNS)
        else:
            assert not isinstance(outcome, Exception)
            assert row["error_code"] is row["error"] is None
            assert (row["label"], row["digit"]) == (outcome.label, outcome.digit)
            assert row["refusal"] == outcome.refusal
            assert (row["confidence"], row["is_digit"]) == (outcome.confidence, outcome.is_digit)
            assert tuple(row["probabilities"]) == outcome.probabilities
        assert (row["model"], row["version"]) == ("digits", 1)
    assert {row["digit"] for row in rows.values()} == {None, *range(10)}


def test_score_vanished_file_is_a_row(folder: Path, server: LinearModelServer) -> None:
    listing = files.list_images(str(folder)).images
    (folder / "3.png").unlink()
    (folder / "4.png").unlink()
    (folder / "4.png").mkdir()
    rows = {
        Path(row["path"]).name: row
        for row in Scorer(str(folder), server.target, "digits", 1)(listing).to_pylist()
    }
    assert rows["3.png"]["error_code"] == "not_found"
    assert rows["4.png"]["error_code"] == "unreadable"
    assert rows["5.png"]["digit"] == 5


def test_score_failed_call_is_an_error_of_its_pictures(folder: Path, server: LinearModelServer) -> None:
    server.failures = [grpc.StatusCode.INTERNAL]
    try:
        rows = score(folder, server.target)
    finally:
        server.failures = []
    assert rows["1.png"]["error_code"] == "service_error"
    assert rows["1.png"]["version"] == 1


def test_score_many_pictures_are_in_order(folder: Path, server: LinearModelServer) -> None:
    listing = files.list_images(str(folder)).images
    repeated = listing.take(list(range(len(listing))) * 60)
    rows = Scorer(str(folder), server.target, "digits", 1)(repeated)
    assert rows.schema == PREDICTIONS
    assert rows.select(files.LISTING.names).equals(repeated)


def test_score_labels_that_are_no_digits_have_no_digit(tmp_path: Path) -> None:
    task = TaskCard("colors", ("dark", "light"), (4, 4), (0.0, 1.0))
    pixels = np.stack([np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8)])
    (tmp_path / "a.png").write_bytes(to_png(pixels[1]))
    with LinearModelServer(pixels, np.array([0, 1], np.uint8), task=task) as server:
        scorer = Scorer(str(tmp_path), server.target, "colors", 1)
        (row,) = scorer(files.list_images(str(tmp_path)).images).to_pylist()
    assert (row["label"], row["digit"], row["is_digit"]) == ("light", None, None)


def test_score_read_returns_numbers_with_boxes(folder: Path, server: LinearModelServer, digits: Any) -> None:
    (folder / "page.png").write_bytes(to_png(draw_lines([digits.one(4), digits.one(2)])))
    scorer = Scorer(str(folder), server.target, "digits", 1, read=True)
    table = scorer(files.list_images(str(folder)).images)
    rows = {Path(row["path"]).name: row for row in table.to_pylist()}
    assert table.schema == READINGS
    with ModelServerClient(server.target) as client:
        expected = client.read(folder / "page.png")
    (line,) = rows["page.png"]["lines"]
    assert rows["page.png"]["text"] == line["text"] == expected.text
    assert tuple(line["box"].values()) == expected.lines[0].box
    assert [tuple(digit["box"].values()) for digit in line["digits"]] == [
        each.box for each in expected.digits
    ]
    assert [digit["digit"] for digit in line["digits"]] == [each.digit for each in expected.digits]
    assert (rows["blank.png"]["text"], rows["blank.png"]["refusal"]) == ("", "no_digit")
    assert rows["blank.png"]["error_code"] is None


def test_scorer_used_before_can_be_pickled(folder: Path, server: LinearModelServer) -> None:
    listing = files.list_images(str(folder)).images
    scorer = Scorer(str(folder), server.target, "digits", 1)
    rows = scorer(listing)
    assert pickle.loads(pickle.dumps(scorer))(listing).equals(rows)
