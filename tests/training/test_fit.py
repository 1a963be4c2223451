"""Fits: reproducibility, augmentation, multi-step calls, validation, ensembles and interruption."""

import signal
from collections import defaultdict
from dataclasses import replace

import keras
import numpy as np
import pytest

from digit_client import DIGITS, TaskCard
from digit_training import classifier, evaluation, models, negatives, synthetic
from digit_training import fit as fitting
from digit_training.augment import MILD, STRONG, AugmentationConfig, Images, augment
from digit_training.classifier import Outputs
from digit_training.data import NO_DIGIT, Dataset, Examples
from digit_training.evaluation import Evaluation, evaluate
from digit_training.fit import MAX_REFUSED, SEEDS, AugmentedBatches, FitResult, fit, multi_step
from digit_training.models import IS_DIGIT, PROBABILITIES
from digit_training.recipes import RECIPES, Recipe, sgd
from tests.training.conftest import predict, predict_outputs, small_network

PERCEPTRON = RECIPES["perceptron"]

FAST = replace(PERCEPTRON, augmented=True).with_epochs(2)
"""Recipe without multi-step calls, which take longer to compile than these fits."""


@pytest.fixture(scope="module")
def two_epochs(dataset: Dataset) -> FitResult:
    """Perceptron after two epochs of 200 digits with seed 0."""
    return fit(PERCEPTRON.with_epochs(2), dataset.train[:200], seed=0)


@pytest.fixture(scope="module")
def members(dataset: Dataset) -> list[keras.Model]:
    """Networks fitted one by one with the last seed and the first, which follows the last."""
    return [fit(FAST, dataset.train[:200], seed).model for seed in (SEEDS - 1, 0)]


def have_equal_weights(one: keras.Model, other: keras.Model) -> bool:
    return all(map(np.array_equal, one.get_weights(), other.get_weights()))


def have_equal_outputs(one: keras.Model, other: keras.Model, dataset: Dataset) -> bool:
    return np.array_equal(predict(one, dataset.test.pixels), predict(other, dataset.test.pixels))


def test_augmented_batches_each_epoch_holds_every_example_once_in_another_order(dataset: Dataset) -> None:
    batches = AugmentedBatches(dataset.train[:100], 32, seed=0)
    first = np.concatenate([batches[index][1] for index in range(len(batches))])
    batches.set_epoch(1)
    second = np.concatenate([batches[index][1] for index in range(len(batches))])
    assert len(batches) == 4
    assert np.array_equal(np.bincount(first), np.bincount(dataset.train.labels[:100]))
    assert np.array_equal(np.bincount(first), np.bincount(second))
    assert not np.array_equal(first, second)


def test_augmented_batches_item_has_model_input_format(dataset: Dataset) -> None:
    pixels, labels = AugmentedBatches(dataset.train[:100], 32, seed=0)[3]
    assert (pixels.shape, labels.shape) == ((4, 784), (4,))
    assert pixels.dtype == np.float32
    assert (pixels.min(), pixels.max()) == (0, 1)


def test_augmented_batches_item_depends_only_on_seed_epoch_and_index(dataset: Dataset) -> None:
    one, two = (AugmentedBatches(dataset.train[:100], 32, seed=5) for _ in range(2))
    two[0], two[1]
    assert np.array_equal(one[2][0], two[2][0])
    two.set_epoch(1)
    assert not np.array_equal(one[2][0], two[2][0])
    assert not np.array_equal(one[2][0], AugmentedBatches(dataset.train[:100], 32, seed=6)[2][0])


def test_augmented_batches_mild_epochs_distort_less(dataset: Dataset) -> None:
    examples = dataset.train[:500]
    batches = AugmentedBatches(examples, len(examples), seed=0, mild_from_epoch=1)

    def mean_distortion() -> float:
        pixels, _ = batches[0]
        return float(np.abs(pixels - examples[batches.order].pixels).mean())

    strong = mean_distortion()
    batches.set_epoch(1)
    assert mean_distortion() < 0.9 * strong


def test_augmented_batches_mild_epochs_hold_only_the_first_mild_examples(dataset: Dataset) -> None:
    batches = AugmentedBatches(dataset.train[:100], 32, seed=0, mild_from_epoch=1, mild_examples=80)
    assert np.array_equal(np.sort(batches.order), np.arange(100))
    batches.set_epoch(1)
    assert len(batches.order) == 100
    assert np.array_equal(np.unique(batches.order), np.arange(80))


def test_augmented_batches_of_two_outputs_give_targets_and_weights_by_output(dataset: Dataset) -> None:
    negatives = Examples(dataset.train.images[:20], np.full(20, NO_DIGIT, np.uint8))
    batches = AugmentedBatches(dataset.train[:30] + negatives, 50, seed=0, has_two_outputs=True)
    pixels, targets, weights = batches[0]
    is_digit = batches.order < 30
    assert pixels.shape == (50, 784)
    assert np.array_equal(targets[IS_DIGIT], is_digit[:, None])
    assert np.array_equal(targets[PROBABILITIES][is_digit], dataset.train.labels[batches.order[is_digit]])
    assert np.array_equal(weights[PROBABILITIES], is_digit)
    assert np.array_equal(weights[IS_DIGIT], np.ones(50))


def test_fit_of_two_outputs_learns_to_refuse_negatives(
    refusing: FitResult, refusing_evaluation: Evaluation
) -> None:
    assert refusing.negative_examples == round(refusing.recipe.negative_fraction * refusing.examples)
    assert set(refusing.history) == {"accuracy", "loss", "val_accuracy", "val_loss"}
    assert refusing_evaluation.accuracy > 0.6
    refusals = refusing_evaluation.refusals
    assert refusals
    digits = refusals.digits.is_digit.mean()
    assert all(digits > refusals.negatives[name].is_digit.mean() for name in ("words", "numbers", "specks"))


def test_fit_threshold_refuses_few_readable_digits(
    refusing: FitResult, refusing_evaluation: Evaluation
) -> None:
    assert refusing.threshold
    assert refusing.threshold.refused_share <= MAX_REFUSED
    assert 0 < refusing.threshold.value < 1
    assert refusing_evaluation.refusals
    assert refusing_evaluation.refusals.digits.refused_share < 0.1


def test_fit_of_one_output_has_no_negatives_and_no_threshold(calibrated: FitResult) -> None:
    assert (calibrated.negative_examples, calibrated.threshold) == (0, None)


def test_fit_negatives_change_neither_loss_nor_accuracy_of_the_probabilities(dataset: Dataset) -> None:
    """Without training, a fit with as many blank negatives as digits has the figures of the digits."""
    frozen = replace(FAST, build=small_network, learning_rate=0.0, epochs=1)
    plain, mixed = (
        fit(replace(frozen, negative_fraction=fraction), dataset.train[:200], seed=0)
        for fraction in (0.0, 1.0)
    )
    assert mixed.negative_examples == 200
    for name in ("loss", "accuracy"):
        assert mixed.history[name] == pytest.approx(plain.history[name], rel=0.15)


def fit_with_keras(
    dataset: Dataset, examples: int, batches_per_chunk: int | None = None, xla: bool = False
) -> keras.Model:
    """Return a perceptron after two epochs with batches of 32, fetched one by one or in chunks."""
    keras.utils.set_random_seed(3)
    model = models.perceptron()
    model.compile(sgd(0.5, 1), loss="sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=xla)
    if batches_per_chunk:
        model.train_step = multi_step(model, 32)
    train = dataset.train[:examples]
    model.fit(train.pixels, train.labels, epochs=2, batch_size=32 * (batches_per_chunk or 1), verbose=0)
    return model


@pytest.mark.parametrize(
    ("examples", "batches_per_chunk", "xla"),
    [
        pytest.param(1000, 20, False, id="last batch smaller"),
        pytest.param(641, 10, True, id="last chunk smaller than a batch, XLA"),
        pytest.param(1000, 20, True, id="last batch smaller, XLA", marks=pytest.mark.slow),
        pytest.param(641, 10, False, id="last chunk smaller than a batch", marks=pytest.mark.slow),
        pytest.param(20, 10, True, id="only chunk smaller than a batch, XLA", marks=pytest.mark.slow),
    ],
)
def test_multi_step_chunks_give_the_same_fit_as_single_batches(
    dataset: Dataset, examples: int, batches_per_chunk: int, xla: bool
) -> None:
    expected = fit_with_keras(dataset, examples)
    actual = fit_with_keras(dataset, examples, batches_per_chunk, xla)
    for one, other in zip(expected.get_weights(), actual.get_weights(), strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-6)
    for name in ("loss", "accuracy"):
        assert actual.history.history[name] == pytest.approx(expected.history.history[name])
    assert int(actual.optimizer.iterations) == int(expected.optimizer.iterations)


def test_fit_same_seed_gives_the_same_perceptron(two_epochs: FitResult, dataset: Dataset) -> None:
    again = fit(two_epochs.recipe, dataset.train[:200], seed=0)
    assert have_equal_weights(two_epochs.model, again.model)


def test_fit_other_seed_gives_another_model(members: list[keras.Model]) -> None:
    assert not have_equal_weights(*members)


def test_fit_same_seed_gives_the_same_augmented_fit(calibrated: FitResult, dataset: Dataset) -> None:
    again = fit(calibrated.recipe, dataset.train[:240], seed=1)
    assert have_equal_weights(calibrated.model, again.model)
    assert calibrated.history == again.history


@pytest.mark.slow
@pytest.mark.parametrize("name", ["quick", "full"])
def test_fit_same_seed_gives_the_same_convnet(name: str, dataset: Dataset) -> None:
    recipe = RECIPES[name].with_epochs(1)
    one, again, other = (fit(recipe, dataset.train[:600], seed).model for seed in (1, 1, 2))
    assert have_equal_weights(one, again)
    assert not have_equal_weights(one, other)


def test_fit_perceptron_gives_the_model_of_the_articles_code(two_epochs: FitResult, dataset: Dataset) -> None:
    train = dataset.train[:200]
    keras.utils.set_random_seed(0)
    article = models.perceptron()
    article.compile(
        optimizer=keras.optimizers.SGD(0.01), loss="sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    article.fit(train.pixels, train.labels, epochs=2, batch_size=32, verbose=0)
    for expected, weights in zip(article.get_weights(), two_epochs.model.get_weights(), strict=True):
        np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-6)
    for name in ("loss", "accuracy"):
        assert two_epochs.history[name] == pytest.approx(article.history.history[name])


@pytest.mark.parametrize("name", ["full", "best"])
def test_fit_mild_epochs_include_negatives_and_unless_disabled_synthetic_digits(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # Two threads augment the batches: appending to a list is atomic, adding to a number is not.
    counts = defaultdict[AugmentationConfig, list[int]](list)
    synthetic_counts = defaultdict[AugmentationConfig, list[int]](list)
    negative_counts = defaultdict[AugmentationConfig, list[int]](list)

    def draw_solid_squares(count: int, rng: np.random.Generator) -> Examples:
        return Examples(np.full((count, 28, 28), 255, np.uint8), np.zeros(count, np.uint8))

    def count_and_augment(images: Images, rng: np.random.Generator, config: AugmentationConfig) -> Images:
        counts[config].append(len(images))
        synthetic_counts[config].append(int((images.min(axis=(1, 2)) == 255).sum()))
        negative_counts[config].append(int((images.max(axis=(1, 2)) == 0).sum()))
        return augment(images, rng, config)

    def draw_nothing(count: int, rng: np.random.Generator, digits: Examples) -> Examples:
        return Examples(np.zeros((count, 28, 28), np.uint8), np.full(count, NO_DIGIT, np.uint8))

    monkeypatch.setattr(synthetic, "make_digits", draw_solid_squares)
    monkeypatch.setattr(negatives, "draw_negatives", draw_nothing)
    monkeypatch.setattr(fitting, "augment", count_and_augment)
    recipe = replace(RECIPES[name], epochs=3, mild_epochs=1, networks=1, validation_split=0)
    result = fit(replace(recipe, build=small_network), dataset.train[:240], seed=0)
    assert result.synthetic_examples == round(0.05 * 240)
    assert result.negative_examples == round(result.recipe.negative_fraction * 240)
    assert sum(counts[MILD]) == 240 + result.synthetic_examples + result.negative_examples
    assert sum(negative_counts[MILD]) >= result.negative_examples
    assert sum(negative_counts[STRONG]) >= 2 * result.negative_examples
    assert sum(synthetic_counts[STRONG]) >= 2 * result.synthetic_examples
    assert sum(synthetic_counts[MILD]) == (result.synthetic_examples if name == "full" else 0)


def test_fit_validation_examples_choose_the_epoch_and_calibrate(dataset: Dataset) -> None:
    recipe = replace(FAST, epochs=4, learning_rate=1.0, validation_split=1 / 4)

    def zero_weights_in_last_epoch(batch: int, logs: object) -> None:
        if len(callback.model.history.epoch) == 3:
            callback.model.set_weights([0 * weights for weights in callback.model.get_weights()])

    callback = keras.callbacks.LambdaCallback(on_train_batch_end=zero_weights_in_last_epoch)
    result = fit(recipe, dataset.train[:1200], 0, [callback])
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


def test_fit_result_describes_the_fit(fitted: FitResult, calibrated: FitResult) -> None:
    assert (fitted.examples, fitted.synthetic_examples, fitted.validation_examples) == (4000, 0, 0)
    assert (calibrated.examples, calibrated.synthetic_examples, calibrated.validation_examples) == (
        220,
        44,
        20,
    )
    assert (fitted.seed, calibrated.seed) == (0, 1)
    assert fitted.seconds > 0
    assert fitted.device == "CPU" or fitted.device.startswith("GPU: ")


def interrupt_after(epochs: int, networks: int = 0) -> keras.callbacks.Callback:
    """Return a callback that sends SIGINT after `networks` networks and then `epochs` epochs of the next."""
    begun: list[object] = []

    def interrupt(batch: int, logs: object) -> None:
        if len(begun) > networks and len(callback.model.history.epoch) == epochs:
            signal.raise_signal(signal.SIGINT)

    callback = keras.callbacks.LambdaCallback(on_train_begin=begun.append, on_train_batch_end=interrupt)
    return callback


@pytest.mark.parametrize(
    "recipe", [FAST, pytest.param(PERCEPTRON, marks=pytest.mark.slow)], ids=["augmented", "multi-step"]
)
def test_fit_interrupted_in_third_epoch_returns_the_model_of_two(
    recipe: Recipe, dataset: Dataset, members: list[keras.Model], two_epochs: FitResult
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    result = fit(recipe.with_epochs(10), dataset.train[:200], 0, [interrupt_after(2)])
    assert (result.epochs, result.best_epoch, result.complete) == (2, 2, False)
    assert len(result.history["loss"]) == 2
    assert signal.getsignal(signal.SIGINT) is handler
    assert two_epochs.complete
    assert have_equal_weights(result.model, members[1] if recipe is FAST else two_epochs.model)


def test_fit_interrupted_in_first_epoch_raises_keyboard_interrupt(dataset: Dataset) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(FAST, dataset.train[:200], 0, [interrupt_after(0)])


@pytest.mark.slow
def test_fit_ensemble_averages_networks_of_consecutive_seeds(
    dataset: Dataset, members: list[keras.Model]
) -> None:
    result = fit(replace(FAST, networks=2), dataset.train[:200], seed=SEEDS - 1)
    assert have_equal_outputs(result.model, models.ensemble(members), dataset)
    assert (result.networks, result.epochs, result.seed, result.complete) == (2, 2, SEEDS - 1, True)


@pytest.mark.parametrize(
    ("networks", "epochs"),
    [
        pytest.param(1, 0, marks=pytest.mark.slow),
        (1, 1),
        (2, 0),
        pytest.param(2, 1, marks=pytest.mark.slow),
    ],
)
def test_fit_ensemble_interrupted_returns_the_complete_networks(
    dataset: Dataset, members: list[keras.Model], networks: int, epochs: int
) -> None:
    recipe, callback = replace(FAST, networks=3), interrupt_after(epochs, networks)
    result = fit(recipe, dataset.train[:200], SEEDS - 1, [callback])
    assert (result.progress, result.complete) == (f"{networks} of 3 networks", False)
    assert (result.networks, result.epochs, result.seed) == (networks, 2, SEEDS - 1)
    expected = members[0] if networks == 1 else models.ensemble(members)
    assert have_equal_outputs(result.model, expected, dataset)


@pytest.mark.slow
def test_fit_perceptron_on_mnist_reaches_the_articles_accuracy(mnist: Dataset) -> None:
    recipe = PERCEPTRON.scaled_to(len(mnist.train))
    accuracy = evaluate(fit(recipe, mnist.train, seed=0).model, mnist.test, DIGITS).accuracy
    assert 0.86 < accuracy < 0.93


def test_fit_feedback_trains_and_never_validates(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    feedback = Examples(np.full((30, 28, 28), 77, np.uint8), np.zeros(30, np.uint8))
    trained: list[Images] = []
    validated: list[Images] = []

    def augment_nothing(images: Images, rng: np.random.Generator, config: AugmentationConfig) -> Images:
        trained.append(images)
        return images

    def record(model: keras.Model, images: Images, task: TaskCard) -> Outputs:
        validated.append(images)
        return classifier.predict(model, images, task)

    monkeypatch.setattr(fitting, "augment", augment_nothing)
    monkeypatch.setattr(fitting, "predict", record)
    recipe = replace(FAST.with_epochs(1), validation_split=0.5)
    result = fit(recipe, dataset.train[:100], 0, feedback=feedback)
    assert (result.examples, result.feedback_examples, result.validation_examples) == (50, 30, 50)

    def count_feedback(batches: list[Images]) -> int:
        return sum(int((images == 77).all(axis=(1, 2)).sum()) for images in batches)

    # Keras may read a batch ahead twice.
    assert count_feedback(trained) >= 30
    assert count_feedback(validated) == 0
    assert len(validated[0]) == 50


def test_fit_with_weights_starts_from_them(fitted: FitResult, dataset: Dataset) -> None:
    weights = fitted.model.get_weights()
    result = fit(replace(FAST, learning_rate=1e-9), dataset.train[:100], 0, weights=weights)
    for one, other in zip(result.model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_fit_feedback_of_no_digits_teaches_is_digit(refusing: FitResult, dataset: Dataset) -> None:
    # A digit, which the network accepts without the feedback.
    digit = dataset.train[:1]
    feedback = Examples(digit.images, np.full(1, NO_DIGIT, np.uint8)).repeat(200)
    result = fit(refusing.recipe, dataset.train[1:600], seed=1, feedback=feedback)
    before, after = (
        predict_outputs(model, digit.pixels)[IS_DIGIT] for model in (refusing.model, result.model)
    )
    assert after < before - 0.3
