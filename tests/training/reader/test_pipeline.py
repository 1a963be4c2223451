"""Reader pipeline: the network that ships, and a fit from the command to a published version."""

import json
import shutil
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from digit_core.artifact.models_folder import ModelsFolder
from digit_core.artifact.task_card import DIGITS, READER_NAME
from digit_core.artifact.versions import Version
from digit_core.reading.certainty import log_odds, sigmoid
from digit_core.reading.peaks import CLASSES, Peaks
from digit_core.recognition import Classify, Find, Recognition, drive
from digit_core.results import Reading
from digit_training import shipped
from digit_training.data import SAMPLE, Dataset
from digit_training.detector import detector
from digit_training.errors import Interrupted, ModelError, NotPublishedError
from digit_training.export import read_weights
from digit_training.finder import MIN_SCORE, Finder, finder
from digit_training.publication import Target
from digit_training.quality_gate import QualityGate
from digit_training.reader import pipeline
from digit_training.reader.evaluation import score
from digit_training.reader.fitting import Plan
from digit_training.recipes import FitRun
from tests.core.drawn_numbers import draw_lines
from tests.core.linear_model import LinearModel
from tests.training.conftest import write_version


def target(folder: Path, *, force: bool = False, **options: Any) -> Target:
    return Target(ModelsFolder(folder, **options), QualityGate(0.85, force=force))


@pytest.fixture(scope="module")
def reader(models: Path) -> Any:
    """SavedModel of the shipped reader, published and loaded."""
    return tf.saved_model.load(str(models.parent / "reader" / "1"))


def test_shipped_reader_is_stable_with_its_card(models: Path) -> None:
    version = ModelsFolder(models.parent).labelled("reader")
    assert version is not None
    card = version.card()
    assert card["origin"] == "shipped with digits"
    assert card["drawn_pages"]["recall"] > 0.7
    assert card["weights_sha256"] == shipped.read_card(READER_NAME)["weights_sha256"]


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


@pytest.fixture
def few_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pipeline that judges a network by few pages of few glyphs."""
    for name, count in (("TEST_PAGES", 60), ("LINE_PAGES", 30), ("TEST_GLYPHS", 40)):
        monkeypatch.setattr(pipeline, name, count)


@pytest.fixture(scope="module")
def network() -> keras.Model:
    """Network as it ships."""
    return shipped.load_detector()


@pytest.fixture(scope="module")
def find(network: keras.Model) -> Finder:
    """Peaks that this network finds; its graph takes seconds to build."""
    return finder(network)


@pytest.fixture
def fit(few_pages: None, network: keras.Model, find: Finder, monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Fit in no time, whose result is the shipped network, which reads less than is required."""
    monkeypatch.setattr(pipeline, "MIN_RECALL", 0.99)
    fit = Mock(return_value=network)
    monkeypatch.setattr(pipeline, "fit", fit)
    monkeypatch.setattr(pipeline, "finder", lambda _: find)
    return fit


def test_train_reader_below_the_least_recall_is_reported_and_not_published(
    fit: Mock, find: Finder, dataset: Dataset, tmp_path: Path
) -> None:
    run = FitRun(READER_NAME, {"epochs": 1, "batch_size": 1}, 3, SAMPLE, tmp_path / "report")
    with pytest.raises(NotPublishedError, match=r"0\.\d{4} of the digits are read right, below .* of 0\.85"):
        pipeline.train(target(tmp_path / "models"), run)
    assert not (tmp_path / "models" / "reader").exists()
    plan, card = fit.call_args.args[1], json.loads((tmp_path / "report" / "reader.json").read_text())
    assert plan == Plan(epochs=1, batch_size=1, seed=3)
    assert card["fit"].items() > asdict(plan).items()
    assert card["command"] == "digits train --model reader --seed 3 --epochs 1 --batch-size 1"
    assert card["started_from"] is None
    assert (tmp_path / "report" / "pages.png").stat().st_size > 10_000
    # Threshold and slope are folded in: half is the threshold now, and scores are probabilities.
    pages = pipeline.draw_test_pages(dataset.test, pipeline.TEST_PAGES)
    finds = score(pages, [found for page in pages for found in find(page.pixels[np.newaxis])])
    assert finds.recall(0.5) == pytest.approx(card["drawn_pages"]["recall"], abs=0.005)
    # A lower threshold lifts peaks that were too faint to be found, from which the slope was not chosen.
    measured = card["drawn_pages"]
    least, threshold = np.split(log_odds(np.array([MIN_SCORE, measured["threshold"]])), 2)
    faintest = sigmoid(measured["slope"] * (least - threshold))
    chosen_on = replace(
        finds, right=finds.right[finds.right > faintest], wrong=finds.wrong[finds.wrong > faintest]
    )
    assert chosen_on.slope() == pytest.approx(1, abs=0.05), measured


def test_train_reader_from_stable_with_force_starts_with_its_weights_and_publishes(
    fit: Mock, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "write_reader", lambda _, card, folder: write_version(card, folder))
    shutil.copytree(models.parent, tmp_path / "models")
    run = FitRun(READER_NAME, {}, 1, SAMPLE, tmp_path / "report", from_stable=True)
    pipeline.train(target(tmp_path / "models", force=True, verify=Mock()), run)
    assert fit.call_args.args[1].epochs == 2 / 5 * Plan().epochs
    expected = shipped.load_detector().get_weights()
    assert all(map(np.array_equal, fit.call_args.args[3], expected))
    card = ModelsFolder(tmp_path / "models").version(READER_NAME, 2).card()
    assert card["command"] == "digits train --model reader --seed 1 --from stable"
    assert card["started_from"]["command"] == shipped.read_card(READER_NAME)["command"]
    assert 0.5 < card["drawn_pages"]["recall"] < 0.85


def test_train_reader_interrupted_says_how_to_go_on(fit: Mock, tmp_path: Path) -> None:
    fit.side_effect = KeyboardInterrupt
    with pytest.raises(Interrupted, match="the same command goes on where it stopped"):
        pipeline.train(target(tmp_path / "models"), FitRun(READER_NAME, {}, 0, SAMPLE, tmp_path))


@pytest.mark.slow
@pytest.mark.usefixtures("few_pages")
def test_train_reader_with_force_publishes_what_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "Plan", partial(Plan, steps_per_epoch=4, glyphs=40))
    monkeypatch.chdir(tmp_path)
    run = FitRun(READER_NAME, {"epochs": 1, "batch_size": 1}, 0, SAMPLE)
    pipeline.train(target(tmp_path / "models", force=True), run)
    assert (tmp_path / "models" / "reader" / "1" / "saved_model.pb").is_file()
    assert (tmp_path / "runs" / "reader" / "reader.json").is_file()


def test_train_from_stable_needs_a_stable_reader(fit: Mock, tmp_path: Path) -> None:
    run = FitRun(READER_NAME, {}, 0, SAMPLE, tmp_path, from_stable=True)
    with pytest.raises(ModelError, match="has no stable reader to start from"):
        pipeline.train(target(tmp_path / "models"), run)
