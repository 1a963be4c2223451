"""Fits: reproducibility, augmentation, validation and interruption."""

import math
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest

from digit_core.artifact.task_card import DIGITS
from digit_training import evaluation, models
from digit_training.data import NO_DIGIT, Dataset, Examples, Labels
from digit_training.evaluation import Evaluation, evaluate
from digit_training.fit import MAX_REFUSED, AugmentedBatches, FitResult, TrainingData, fit
from digit_training.models import IS_DIGIT, PROBABILITIES
from digit_training.reader import crops
from digit_training.recipes import RECIPES
from tests.training.conftest import predict_outputs, small_network

pytestmark = pytest.mark.xdist_group("fits")

PERCEPTRON = RECIPES["perceptron"]

FAST = PERCEPTRON.with_changes(epochs=2)


@pytest.fixture(scope="module")
def results(dataset: Dataset) -> list[FitResult]:
    """Fits with the last seed and the first."""
    return [fit(FAST, learn_from(dataset.train[:200]), seed) for seed in (2**32 - 1, 0)]


def learn_from(examples: Examples, feedback: Examples | None = None) -> TrainingData:
    return TrainingData(examples, crops, feedback)


def have_equal_weights(one: keras.Model, other: keras.Model) -> bool:
    return all(map(np.array_equal, one.get_weights(), other.get_weights()))


def batches_of(
    examples: Examples, seed: int = 0, has_two_outputs: bool = False, **recipe: object
) -> AugmentedBatches:
    changed = replace(FAST, **recipe)  # type: ignore[arg-type]
    return AugmentedBatches(changed, examples, seed, has_two_outputs)


def labels_of(batches: AugmentedBatches) -> Labels:
    return np.concatenate([batches[index][1] for index in range(len(batches))])


def test_augmented_batches_hold_every_example_once_and_depend_on_seed_epoch_and_index(
    dataset: Dataset,
) -> None:
    one, two, other = (batches_of(dataset.train[:100], seed=seed) for seed in (5, 5, 6))
    first = labels_of(one)
    pixels, labels = one[3]
    assert (len(one), pixels.shape, labels.shape, pixels.dtype) == (4, (4, 784), (4,), np.float32)
    assert (pixels.min(), pixels.max()) == (0, 1)
    assert np.array_equal(np.bincount(first), np.bincount(dataset.train.labels[:100]))
    assert np.array_equal(one[2][0], two[2][0])
    assert not np.array_equal(one[2][0], other[2][0])
    two.set_epoch(1)
    assert not np.array_equal(one[2][0], two[2][0])
    assert np.array_equal(np.bincount(labels_of(two)), np.bincount(first))
    assert not np.array_equal(labels_of(two), first)


def test_augmented_batches_mild_epochs_distort_less(dataset: Dataset) -> None:
    examples = dataset.train[:500]
    batches = batches_of(examples, batch_size=500, mild_epochs=1)

    def mean_distortion() -> float:
        pixels, _ = batches[0]
        return float(np.abs(pixels - examples[batches.order].pixels).mean())

    strong = mean_distortion()
    batches.set_epoch(1)
    assert mean_distortion() < 0.9 * strong


def test_augmented_batches_of_two_outputs_give_targets_and_weights_by_output(dataset: Dataset) -> None:
    negatives = Examples(dataset.train.images[:20], np.full(20, NO_DIGIT, np.uint8))
    batches = batches_of(dataset.train[:30] + negatives, batch_size=50, has_two_outputs=True)
    pixels, targets, weights = batches[0]
    is_digit = batches.order < 30
    assert pixels.shape == (50, 784)
    assert np.array_equal(targets[IS_DIGIT], is_digit[:, None])
    assert np.array_equal(targets[PROBABILITIES][is_digit], dataset.train.labels[batches.order[is_digit]])
    assert np.array_equal(weights[PROBABILITIES], is_digit)
    assert np.array_equal(weights[IS_DIGIT], np.ones(50))


def test_fit_of_two_outputs_learns_to_refuse_negatives_and_few_digits(
    refusing: FitResult, refusing_evaluation: Evaluation
) -> None:
    assert refusing.negative_examples == round(refusing.recipe.negative_fraction * refusing.examples)
    assert set(refusing.history) == {"accuracy", "loss", "val_accuracy", "val_loss"}
    assert refusing.threshold
    assert refusing.threshold.refused_share <= MAX_REFUSED
    assert 0 < refusing.threshold.value < 1
    assert refusing_evaluation.accuracy > 0.6
    refusals = refusing_evaluation.refusals
    assert refusals
    assert refusals.digits.refused_share < 0.2
    digits = refusals.digits.is_digit.mean()
    assert all(digits > refusals.negatives[name].is_digit.mean() for name in ("words", "numbers", "specks"))


def test_fit_negatives_change_neither_loss_nor_accuracy_of_the_probabilities(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without training, a fit with as many negatives as digits has the figures of the digits."""
    monkeypatch.setattr("digit_training.fit.CROPPED_NEGATIVES", 0)
    frozen = replace(FAST, build=small_network, learning_rate=0.0, epochs=1)
    plain, mixed = (
        fit(replace(frozen, negative_fraction=fraction), learn_from(dataset.train[:200]), seed=0)
        for fraction in (0.0, 1.0)
    )
    assert mixed.negative_examples == 200
    for name in ("loss", "accuracy"):
        assert mixed.history[name] == pytest.approx(plain.history[name], rel=0.15)


def test_fit_same_seed_gives_the_same_augmented_fit(
    calibrated: FitResult, dataset: Dataset, results: list[FitResult]
) -> None:
    again = fit(calibrated.recipe, learn_from(dataset.train[:240]), seed=1)
    assert have_equal_weights(calibrated.model, again.model)
    assert calibrated.history == again.history
    assert not have_equal_weights(*(result.model for result in results))
    counts = (again.examples, again.synthetic_examples, again.validation_examples, again.negative_examples)
    assert (counts, again.threshold, again.seed) == ((220, 44, 20, 0), None, 1)


@pytest.mark.slow
def test_fit_same_seed_gives_the_same_convnet(dataset: Dataset) -> None:
    recipe = RECIPES["quick"].with_changes(epochs=1)
    assert have_equal_weights(*(fit(recipe, learn_from(dataset.train[:100]), seed=1).model for _ in range(2)))


def test_fit_perceptron_gives_the_model_of_the_articles_code(
    results: list[FitResult], dataset: Dataset
) -> None:
    train = dataset.train[:200]
    keras.utils.set_random_seed(0)
    article = models.perceptron()
    article.compile(
        optimizer=keras.optimizers.SGD(0.01), loss="sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    article.fit(train.pixels, train.labels, epochs=2, batch_size=32, verbose=0)
    for expected, weights in zip(article.get_weights(), results[1].model.get_weights(), strict=True):
        np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-6)
    for name in ("loss", "accuracy"):
        assert results[1].history[name] == pytest.approx(article.history.history[name])


def test_fit_validation_examples_choose_the_epoch_and_calibrate(dataset: Dataset) -> None:
    recipe = replace(FAST, epochs=4, learning_rate=1.0, validation_split=1 / 4)

    def zero_weights_in_last_epoch(batch: int, logs: object) -> None:
        if len(callback.model.history.epoch) == 3:
            callback.model.set_weights([0 * weights for weights in callback.model.get_weights()])

    callback = keras.callbacks.LambdaCallback(on_train_batch_end=zero_weights_in_last_epoch)
    result = fit(recipe, learn_from(dataset.train[:1200]), 0, [callback])
    assert (result.examples, result.validation_examples) == (900, 300)
    assert {name: len(values) for name, values in result.history.items()} == dict.fromkeys(
        ("accuracy", "loss", "val_accuracy", "val_loss"), 4
    )
    losses = result.history["val_loss"]
    assert result.best_epoch == np.argmin(losses) + 1 < 4
    validation = dataset.train[:1200][np.random.default_rng(0).permutation(1200)[:300]]
    probabilities = evaluate(result.model, validation, DIGITS).probabilities
    loss = -np.log(probabilities[np.arange(300), validation.labels]).mean()
    assert loss < min(losses)
    assert evaluation.fit_temperature(probabilities, validation.labels) == pytest.approx(1, abs=1e-3)


class CopiedCrops:
    """Crops that are the digits themselves; those beside the validation digits have other labels."""

    def __init__(self, mislabelled: int) -> None:
        self.mislabelled = mislabelled

    def crop_digits(self, count: int, digits: Examples, rng: np.random.Generator) -> Examples:
        shift = 5 if len(digits) == self.mislabelled else 0
        return Examples(digits.images[:count], (digits.labels[:count] + shift) % 10)

    def crop_negatives(self, count: int, digits: Examples, rng: np.random.Generator) -> Examples:
        return digits[:count]


def test_fit_validates_on_synthetic_digits_beside_the_held_out_ones(dataset: Dataset) -> None:
    recipe = replace(FAST, validation_split=1 / 4, synthetic_fraction=0.2)
    right, wrong = (
        fit(recipe, TrainingData(dataset.train[:400], CopiedCrops(mislabelled)), 0).history
        for mislabelled in (0, 100)
    )
    assert right["loss"] == wrong["loss"]
    assert all(np.array(right["val_loss"]) < wrong["val_loss"])


def interrupt_after(epochs: int) -> keras.callbacks.Callback:
    """Return a callback that sends SIGINT after `epochs` epochs."""

    def interrupt(batch: int, logs: object) -> None:
        if len(callback.model.history.epoch) == epochs:
            signal.raise_signal(signal.SIGINT)

    callback = keras.callbacks.LambdaCallback(on_train_batch_end=interrupt)
    return callback


def test_fit_interrupted_returns_the_model_of_its_epochs_and_goes_on_from_its_backup(
    dataset: Dataset, tmp_path: Path
) -> None:
    recipe, train = replace(FAST, augmented=True, learning_rate=1.0), dataset.train[:200]
    backup = partial(keras.callbacks.BackupAndRestore, tmp_path / "backup")
    four_epochs, handler = recipe.with_changes(epochs=4), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(four_epochs, learn_from(train), 0, [interrupt_after(0)])
    result = fit(four_epochs, learn_from(train), 0, [backup(), interrupt_after(2)])
    assert (result.epochs, result.best_epoch, result.complete) == (2, 2, False)
    assert len(result.history["loss"]) == 2
    assert signal.getsignal(signal.SIGINT) is handler
    assert have_equal_weights(result.model, fit(recipe, learn_from(train), 0).model)
    resumed, whole = (
        fit(four_epochs, learn_from(train), 0, [backup()]),
        fit(four_epochs, learn_from(train), 0),
    )
    assert resumed.complete
    # Keras shuffles the batches otherwise: the losses are close, and far from those of a new fit.
    losses = whole.history["loss"]
    expected = [math.nan, math.nan, *losses[2:]]
    assert resumed.history["loss"] == pytest.approx(expected, nan_ok=True, abs=(losses[0] - losses[2]) / 4)


@pytest.mark.slow
def test_fit_perceptron_on_mnist_reaches_the_articles_accuracy(mnist: Dataset) -> None:
    recipe = PERCEPTRON.scaled_to(len(mnist.train))
    accuracy = evaluate(fit(recipe, learn_from(mnist.train), seed=0).model, mnist.test, DIGITS).accuracy
    assert 0.86 < accuracy < 0.93


def test_fit_feedback_trains_and_never_validates(dataset: Dataset) -> None:
    """Feedback calls every digit a zero: the validation examples, if they had such labels, would agree."""
    train = dataset.train[dataset.train.labels != 0][:200]
    feedback = Examples(train.images, np.zeros_like(train.labels)).repeat(5)
    recipe = replace(FAST, epochs=4, learning_rate=0.5, validation_split=0.5)
    result = fit(recipe, learn_from(train, feedback), 0)
    assert (result.examples, result.feedback_examples, result.validation_examples) == (100, 1000, 100)
    assert result.history["accuracy"][-1] > 0.8
    assert result.history["val_accuracy"][-1] < 0.3


def test_fit_starting_from_weights_begins_with_them(fitted: FitResult, dataset: Dataset) -> None:
    weights = fitted.model.get_weights()
    result = fit(replace(FAST, learning_rate=1e-9).starting_from(weights), learn_from(dataset.train[:100]), 0)
    for one, other in zip(result.model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_fit_feedback_of_no_digits_teaches_is_digit(dataset: Dataset) -> None:
    digit, train = dataset.train[:1], dataset.train[1:201]
    feedback = Examples(digit.images, np.full(1, NO_DIGIT, np.uint8)).repeat(100)
    recipe = replace(FAST, build=small_network, epochs=4, learning_rate=0.5)
    model = fit(recipe, learn_from(train, feedback), seed=1).model
    assert predict_outputs(model, digit.pixels)[IS_DIGIT] < 0.3
    assert predict_outputs(model, train.pixels)[IS_DIGIT].mean() > 0.7
