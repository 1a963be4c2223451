"""Comparison of a new model with the served version."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import keras
import numpy as np
import pytest

from digit_core.artifact.models_folder import ModelsFolder
from digit_core.artifact.task_card import DIGITS, CardInput
from digit_core.artifact.versions import Version
from digit_training import export, pictures
from digit_training.comparison import ask_served, compare, judging_sets
from digit_training.data import NO_DIGIT, Dataset, Examples
from digit_training.errors import DataError
from digit_training.evaluation import Evaluation, evaluate
from digit_training.fit import FitResult
from digit_training.models import IS_DIGIT, PROBABILITIES
from digit_training.pictures import LabelledPictures
from digit_training.quality_gate import FEEDBACK, HARD_PICTURES, TEST
from tests.training.conftest import COLORS, predict_outputs

pytestmark = pytest.mark.xdist_group("fits")


def test_compare_with_itself_has_equal_answers_on_all_pictures(
    published: Version, fitted: FitResult, dataset: Dataset
) -> None:
    evaluation = evaluate(fitted.model, dataset.test, DIGITS)
    sets = judging_sets(LabelledPictures.of(dataset.test), LabelledPictures.of(dataset.train[:30]))
    comparisons = compare(fitted.model, sets, evaluation, (published, ask_served(published, sets)))
    assert comparisons.served == str(published.path)
    counts = {name: len(comparison) for name, comparison in comparisons.of.items()}
    assert counts == {TEST: 1000, FEEDBACK: 30, HARD_PICTURES: 460}
    assert not any(comparison.gained + comparison.lost for comparison in comparisons.of.values())
    assert comparisons.of[TEST].accuracy == evaluation.accuracy


def test_compare_counts_refusals_on_the_feedback(
    refusing: FitResult, refusing_evaluation: Evaluation, dataset: Dataset
) -> None:
    digits = dataset.train[:100]
    held_out = digits + Examples(digits.images, np.full(100, NO_DIGIT, np.uint8))
    sets = judging_sets(LabelledPictures.of(dataset.test), LabelledPictures.of(held_out))
    feedback = compare(refusing.model, sets, refusing_evaluation, None).of[FEEDBACK]
    outputs = predict_outputs(refusing.model, digits.pixels)
    accepted = outputs[IS_DIGIT] >= 0.5
    is_label = outputs[PROBABILITIES].argmax(axis=1) == digits.labels
    assert np.array_equal(feedback.right, np.concatenate((accepted & is_label, ~accepted)))


@pytest.fixture(scope="module")
def served_colors(colors_model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Version:
    """Model of COLORS, published as version 1 of 64 × 48 pixels."""
    card, blank = {"task": COLORS.to_document()}, np.zeros((1, *COLORS.shape), np.uint8)
    write = partial(export.write_artifact, colors_model, COLORS, card, blank)
    return ModelsFolder(tmp_path_factory.mktemp("models"), verify=Mock()).publish("colors", write)


SMALL = CardInput((32, 32, 3), COLORS.range)


@pytest.mark.parametrize("pixels", [SMALL, CardInput(COLORS.shape, (0.0, 255.0))])
def test_ask_served_prepares_the_same_pictures_as_its_own_card_says(
    pixels: CardInput, served_colors: Version, colors_folder: Path
) -> None:
    new = replace(COLORS, input=pixels)
    loaded = pictures.load(colors_folder, new)
    answers = ask_served(served_colors, judging_sets(loaded))
    assert answers == ask_served(served_colors, judging_sets(pictures.load(colors_folder, COLORS)))
    assert list(answers[TEST]) == list(loaded.names)


def test_compare_counts_a_picture_that_one_preparation_refuses_as_its_wrong_answer(
    served_colors: Version, colors_model: keras.Model, colors_folder: Path
) -> None:
    loaded = pictures.load(colors_folder, COLORS)
    # The new model's preparation refuses the first picture, the served version's the last one.
    rest = LabelledPictures(loaded.examples[1:], {}, loaded.names[1:], task=COLORS)
    labels = loaded.examples.labels.tolist()
    answers = {TEST: {name: (True, labels[row], 1.0) for row, name in enumerate(loaded.names[:-1])}}
    evaluation = evaluate(colors_model, rest.examples, COLORS)
    test = compare(colors_model, {TEST: rest}, evaluation, (served_colors, answers)).of[TEST]
    assert len(test) == len(loaded)
    assert test.right.sum() == round(evaluation.accuracy * len(rest))
    assert test.served is not None
    assert test.labels is not None
    assert sorted(test.labels) == sorted(labels)
    assert test.served.tolist() == [True] * (len(loaded) - 2) + [False, True]
    assert not test.right[-1]


def test_ask_served_that_accepts_no_picture_raises_data_error(
    served_colors: Version, colors_folder: Path
) -> None:
    card = served_colors.path / "assets.extra" / "model.json"
    card.write_text(card.read_text().replace('"kind": "resize"', '"kind": "none"'))
    sets = judging_sets(pictures.load(colors_folder, replace(COLORS, input=SMALL)))
    with pytest.raises(DataError, match="holds no picture that can be evaluated"):
        ask_served(served_colors, sets)
