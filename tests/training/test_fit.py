"""."""

import signal
from collections import defaultdict
from dataclasses import replace

import keras
import numpy as np
import pytest

from digit_training import evaluation, models, synthetic
from digit_training import fit as fitting
from digit_training.augment import ANYBODY, CAREFUL, Hand, Images, augment
from digit_training.data import Dataset, Examples
from digit_training.evaluation import evaluate
from digit_training.fit import Batches, Fit, by_block, fit
from digit_training.models import perceptron
from digit_training.recipes import RECIPES, sgd


def test_each_epoch_holds_every_example_once_in_another_order(dataset: Dataset) -> None:
    batches = Batches(dataset.train[:100], 32, seed=0)
    first = np.concatenate([batches[index][1] for index in range(len(batches))])
    batches.begin(1)
    second = np.concatenate([batches[index][1] for index in range(len(batches))])
    assert len(batches) == 4
    assert np.array_equal(np.bincount(first), np.bincount(dataset.train.labels[:100]))
    assert np.array_equal(np.bincount(first), np.bincount(second))
    assert not np.array_equal(first, second)


def test_a_batch_is_what_a_model_reads(dataset: Dataset) -> None:
    pixels, labels = Batches(dataset.train[:100], 32, seed=0)[3]
    assert (pixels.shape, labels.shape) == ((4, 784), (4,))
    assert pixels.dtype == np.float32
    assert (pixels.min(), pixels.max()) == (0, 1)


def test_a_batch_is_the_same_whenever_it_is_read(dataset: Dataset) -> None:
    one, two = (Batches(dataset.train[:100], 32, seed=5) for _ in range(2))
    two[0], two[1]
    assert np.array_equal(one[2][0], two[2][0])
    two.begin(1)
    assert not np.array_equal(one[2][0], two[2][0])
    assert not np.array_equal(one[2][0], Batches(dataset.train[:100], 32, seed=6)[2][0])


def test_the_last_epochs_are_written_with_more_care(dataset: Dataset) -> None:
    examples = dataset.train[:500]
    batches = Batches(examples, len(examples), seed=0, careful_from=1)

    def departure() -> float:
        pixels, _ = batches[0]
        return float(np.abs(pixels - examples[batches.order].pixels).mean())

    free = departure()
    batches.begin(1)
    assert departure() < 0.9 * free


def test_the_last_epochs_may_be_of_the_first_examples_alone(dataset: Dataset) -> None:
    batches = Batches(dataset.train[:100], 32, seed=0, careful_from=1, first=80)
    assert np.array_equal(np.sort(batches.order), np.arange(100))
    batches.begin(1)
    assert len(batches.order) == 100
    assert np.array_equal(np.unique(batches.order), np.arange(80))


def fitted(dataset: Dataset, examples: int, xla: bool, batches: int | None) -> keras.Model:
    """A perceptron after two epochs of batches of 32, in blocks of so many or one by one."""
    keras.utils.set_random_seed(3)
    model = perceptron()
    model.compile(sgd(0.5, 1), loss="sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=xla)
    if batches:
        model.train_step = by_block(model, 32)
    train = dataset.train[:examples]
    model.fit(train.pixels, train.labels, epochs=2, batch_size=32 * (batches or 1), verbose=0)
    return model


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize(
    ("examples", "batches"),
    [
        pytest.param(640, 10, id="blocks of one size"),
        pytest.param(1000, 20, id="a batch is left"),
        pytest.param(641, 10, id="the last block is shorter than a batch"),
        pytest.param(20, 10, id="so is the only one"),
    ],
)
def test_blocks_are_learned_as_their_batches_one_by_one(
    dataset: Dataset, examples: int, batches: int, xla: bool
) -> None:
    one_by_one = fitted(dataset, examples, xla, None)
    in_blocks = fitted(dataset, examples, xla, batches)
    for expected, weights in zip(one_by_one.get_weights(), in_blocks.get_weights(), strict=True):
        np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-6)
    for name in ("loss", "accuracy"):
        assert in_blocks.history.history[name] == pytest.approx(one_by_one.history.history[name])
    assert int(in_blocks.optimizer.iterations) == int(one_by_one.optimizer.iterations)


@pytest.mark.parametrize("name", ["perceptron", "quick", "full"])
def test_a_seed_makes_a_fit_repeatable(name: str, dataset: Dataset) -> None:
    def weights(seed: int) -> list[np.ndarray]:
        model = fit(RECIPES[name].lasting(1), dataset.train[:600], seed).model
        return list(model.get_weights())

    first, again, other = weights(1), weights(1), weights(2)
    assert all(map(np.array_equal, first, again))
    assert not all(map(np.array_equal, first, other))


def test_the_perceptron_is_what_the_article_s_own_lines_make(dataset: Dataset) -> None:
    keras.utils.set_random_seed(5)
    plain = RECIPES["perceptron"].build()
    plain.compile(
        optimizer=keras.optimizers.SGD(0.01), loss="sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    plain.fit(dataset.train.pixels, dataset.train.labels, epochs=2, batch_size=32, verbose=0)
    result = fit(RECIPES["perceptron"].lasting(2), dataset.train, seed=5)
    for expected, weights in zip(plain.get_weights(), result.model.get_weights(), strict=True):
        np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-6)
    for name in ("loss", "accuracy"):
        assert result.history[name] == pytest.approx(plain.history.history[name])


def test_the_last_epochs_are_fitted_with_more_care(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    written = defaultdict[Hand, list[int]](list)

    def counted(images: Images, rng: np.random.Generator, hand: Hand) -> Images:
        written[hand].append(len(images))
        return augment(images, rng, hand)

    monkeypatch.setattr(fitting, "augment", counted)
    fit(replace(RECIPES["quick"], epochs=3, careful=2, holdout=0, drawn=0), dataset.train[:500], seed=0)
    assert sum(written[CAREFUL]) == 2 * 500


@pytest.mark.parametrize("name", ["full", "best"])
def test_drawn_digits_are_learned_to_the_end_or_not(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # Two threads write the batches: they may append at once, but not count up.
    seen = defaultdict[Hand, list[int]](list)

    def full_of_ink(count: int, rng: np.random.Generator) -> Examples:
        return Examples(np.full((count, 28, 28), 255, np.uint8), np.zeros(count, np.uint8))

    def counted(images: Images, rng: np.random.Generator, hand: Hand) -> Images:
        seen[hand].append(int((images.min(axis=(1, 2)) == 255).sum()))
        return augment(images, rng, hand)

    monkeypatch.setattr(synthetic, "drawn", full_of_ink)
    monkeypatch.setattr(fitting, "augment", counted)
    fit(replace(RECIPES[name], epochs=3, careful=1, networks=1), dataset.train[:600], seed=0)
    drawn = round(0.05 * 550)
    assert sum(seen[ANYBODY]) >= 2 * drawn
    assert sum(seen[CAREFUL]) == (drawn if name == "full" else 0)


def test_the_held_out_are_not_fitted(dataset: Dataset) -> None:
    recipe = replace(RECIPES["perceptron"], epochs=1, holdout=1 / 12)
    result = fit(recipe, dataset.train[:1200], seed=0)
    assert (result.examples, result.validation_examples) == (1100, 100)
    assert {name: len(values) for name, values in result.history.items()} == dict.fromkeys(
        ("accuracy", "loss", "val_accuracy", "val_loss"), 1
    )


def test_the_best_epoch_by_the_held_out_is_taken_and_calibrated_on_them(dataset: Dataset) -> None:
    recipe = replace(RECIPES["perceptron"], epochs=4, learning_rate=1.0, holdout=1 / 4)

    def spoil(batch: int, logs: object) -> None:
        if len(callback.model.history.epoch) == 3:
            callback.model.set_weights([0 * weights for weights in callback.model.get_weights()])

    callback = keras.callbacks.LambdaCallback(on_train_batch_end=spoil)
    result = fit(recipe, dataset.train[:1200], 0, [callback])
    losses = result.history["val_loss"]
    assert result.best_epoch == np.argmin(losses) + 1 < 4
    held = dataset.train[:1200][np.random.default_rng(0).permutation(1200)[:300]]
    answers = evaluate(result.model, held).probabilities
    loss = -np.log(answers[np.arange(300), held.labels]).mean()
    assert loss < min(losses)
    assert evaluation.temperature(answers, held.labels) == pytest.approx(1, abs=1e-3)


def interrupt_after(epochs: int, networks: int = 0) -> keras.callbacks.Callback:
    """Ctrl-C in the epoch after these, in the network after those."""
    begun: list[object] = []

    def interrupt(batch: int, logs: object) -> None:
        if len(begun) > networks and len(callback.model.history.epoch) == epochs:
            signal.raise_signal(signal.SIGINT)

    callback = keras.callbacks.LambdaCallback(on_train_begin=begun.append, on_train_batch_end=interrupt)
    return callback


def test_an_interrupted_fit_has_its_best_epoch(dataset: Dataset) -> None:
    recipe = RECIPES["perceptron"]
    result = fit(recipe, dataset.train[:600], 0, [interrupt_after(2)])
    assert (result.epochs, result.best_epoch, result.complete) == (2, 2, False)
    assert len(result.history["loss"]) == 2
    two = fit(recipe.lasting(2), dataset.train[:600], 0)
    assert two.complete
    assert all(map(np.array_equal, result.model.get_weights(), two.model.get_weights()))


def test_a_fit_interrupted_in_its_first_epoch_has_nothing(dataset: Dataset) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(RECIPES["perceptron"], dataset.train[:600], 0, [interrupt_after(0)])


SEVERAL = replace(RECIPES["perceptron"].lasting(2), networks=3)


def test_several_networks_are_those_of_the_next_seeds_and_answer_together(dataset: Dataset) -> None:
    digits = dataset.train[:600]
    result = fit(SEVERAL, digits, seed=2**32 - 2)
    alone = [fit(replace(SEVERAL, networks=1), digits, seed).model for seed in (2**32 - 2, 2**32 - 1, 0)]
    expected = evaluate(models.together(alone), digits).probabilities
    assert np.array_equal(evaluate(result.model, digits).probabilities, expected)
    assert (result.networks, result.epochs, result.seed, result.complete) == (3, 2, 2**32 - 2, True)


@pytest.mark.parametrize("networks", [1, 2])
@pytest.mark.parametrize("epochs", [0, 1])
def test_interrupted_in_a_later_network_there_are_those_before_it(
    dataset: Dataset, networks: int, epochs: int
) -> None:
    result = fit(SEVERAL, dataset.train[:600], 0, [interrupt_after(epochs, networks)])
    assert (result.extent, result.complete) == (f"{networks} of 3 networks", False)
    whole = fit(replace(SEVERAL, networks=networks), dataset.train[:600], 0)
    assert whole.complete
    assert all(map(np.array_equal, result.model.get_weights(), whole.model.get_weights()))


def test_a_fit_is_described(fitted: Fit) -> None:
    assert (fitted.examples, fitted.drawn, fitted.validation_examples, fitted.seed) == (4000, 0, 0, 0)
    assert fitted.seconds > 0
    assert fitted.device == "CPU" or fitted.device.startswith("GPU: ")


def test_the_articles_network_reads_most_digits(mnist: Dataset) -> None:
    recipe = RECIPES["perceptron"].stretched(len(mnist.train))
    accuracy = evaluate(fit(recipe, mnist.train, seed=0).model, mnist.test).accuracy
    assert 0.86 < accuracy < 0.93
