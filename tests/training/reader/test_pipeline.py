"""Reader pipeline: the network that ships, and a fit from the command to a published version."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from digit_core.artifact.models_folder import ModelsFolder
from digit_core.artifact.task_card import DIGITS, READER_NAME
from digit_core.artifact.versions import Version
from digit_core.peaks import CLASSES, Peaks
from digit_core.recognition import Classify, Find, Recognition, drive
from digit_core.results import Reading
from digit_training import shipped
from digit_training.data import SAMPLE
from digit_training.errors import ModelError, NotPublishedError
from digit_training.export import read_weights
from digit_training.pipeline import publish_shipped
from digit_training.publication import Target
from digit_training.quality_gate import QualityGate
from digit_training.reader import pipeline
from digit_training.reader.detector import detector
from digit_training.reader.fitting import Plan
from tests.core.drawn_numbers import draw_lines
from tests.core.linear_model import LinearModel


def target(folder: Path, **gate: Any) -> Target:
    return Target(ModelsFolder(folder), QualityGate(**{"min_accuracy": 0.85, **gate}))


@pytest.fixture(scope="module")
def reader(models: Path) -> Any:
    """SavedModel of the shipped reader, published and loaded."""
    return tf.saved_model.load(str(models.parent / "reader" / "1"))


def test_publish_shipped_again_publishes_nothing(models: Path) -> None:
    publish_shipped(target(models.parent), [READER_NAME])
    assert [*ModelsFolder(models.parent).versions(READER_NAME)] == [1]


def test_shipped_reader_is_stable_with_its_card(models: Path) -> None:
    version = ModelsFolder(models.parent).labelled("reader")
    assert version is not None
    card = version.card()
    assert card["origin"] == "shipped with digits"
    assert card["weights_sha256"] == shipped.read_card(READER_NAME)["weights_sha256"]
    assert card["drawn_pages"]["recall"] > 0.7


def test_published_reader_takes_pages_of_any_size(reader: Any) -> None:
    for shape in ((2, 100, 37), (1, 5, 7), (1, 640, 480)):
        found = reader.signatures["serving_default"](pages=tf.zeros(shape, tf.uint8))
        assert found["boxes"].shape[0] == shape[0]
        assert found["classes"].shape[1:] == (found["scores"].shape[1], CLASSES)
        weights = shipped.read_card(READER_NAME)["lines"]["weights"]
        assert found["line_weights"].numpy() == pytest.approx(np.array([weights] * shape[0]))


def test_published_reader_has_the_weights_of_its_network(models: Path) -> None:
    saved = read_weights(Version(READER_NAME, 1, models.parent / "reader" / "1"), detector(), leading=0)
    for written, weights in zip(saved, shipped.load_detector().get_weights(), strict=True):
        assert np.array_equal(written, weights)


def test_shipped_reader_finds_digits(reader: Any, digits: Any) -> None:
    def find(page: np.ndarray) -> Peaks:
        found = reader.signatures["serving_default"](pages=tf.constant(page[np.newaxis]))
        return Peaks(*(found[name].numpy()[0] for name in ("scores", "classes", "boxes")))

    model = LinearModel(digits.images[:1000], digits.labels[:1000])

    def ask(request: Classify | Find) -> Any:
        return model.classify(request.batch) if isinstance(request, Classify) else find(request.page)

    page = draw_lines([digits.one(label) for label in (2, 0, 2, 6)], [digits.one(label) for label in (8, 3)])
    pictures = [page, 255 - page, np.full((300, 400), 255, np.uint8)]
    outcomes = drive(Recognition(DIGITS).read(pictures), ask)
    readings = [outcome.result for outcome in outcomes if isinstance(outcome.result, Reading)]
    assert [reading.text for reading in readings] == ["2026\n83", "2026\n83", ""]


@pytest.mark.slow
def test_train_reader_writes_weights_card_and_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("LINE_PAGES", "TEST_PAGES"):
        monkeypatch.setattr(pipeline, name, 200)
    run = pipeline.ReaderRun({"epochs": 1, "batch_size": 1}, 0, SAMPLE, tmp_path / "report")
    with pytest.raises(NotPublishedError, match="of the digits are read right"):
        pipeline.train(run, target(tmp_path / "models"))
    card = json.loads((tmp_path / "report" / "reader.json").read_text())
    assert card["fit"]["epochs"] == 1
    assert card["fit"]["steps_per_epoch"] == Plan().steps_per_epoch
    assert card["command"] == "digits train --model reader --seed 0 --epochs 1 --batch-size 1"
    assert (tmp_path / "report" / "pages.png").stat().st_size > 10_000
    publish_shipped(target(tmp_path / "models"), [READER_NAME])
    again = replace(run, from_stable=True, seed=1)
    pipeline.train(again, target(tmp_path / "models", force=True))
    second = tmp_path / "models" / "reader" / "2"
    assert (second / "saved_model.pb").is_file()
    card = json.loads((second / "assets.extra" / "model.json").read_text())
    assert card["command"] == "digits train --model reader --seed 1 --from stable --epochs 1 --batch-size 1"
    assert card["started_from"]["command"] == shipped.read_card(READER_NAME)["command"]


def test_train_from_stable_needs_a_stable_reader(tmp_path: Path) -> None:
    run = pipeline.ReaderRun({}, 0, SAMPLE, tmp_path, from_stable=True)
    with pytest.raises(ModelError, match="has no stable reader to start from"):
        pipeline.train(run, target(tmp_path / "models"))
