from dataclasses import replace

import numpy as np
import pytest

from digit_training.dataset import Dataset
from digit_training.evaluate import evaluate
from digit_training.fit import Fit, fit
from digit_training.recipes import RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_a_seed_makes_a_fit_repeatable(name: str, dataset: Dataset) -> None:
    def weights(seed: int) -> list[np.ndarray]:
        model = fit(RECIPES[name].lasting(1), dataset.train[:600], seed).model
        return list(model.get_weights())

    first, again, other = weights(1), weights(1), weights(2)
    assert all(map(np.array_equal, first, again))
    assert not all(map(np.array_equal, first, other))


def test_the_held_out_are_not_fitted(dataset: Dataset) -> None:
    recipe = replace(RECIPES["perceptron"], epochs=1, holdout=1 / 12)
    result = fit(recipe, dataset.train[:1200], seed=0)
    assert (result.examples, result.validation_examples) == (1100, 100)
    assert "val_accuracy" in result.model.history.history


def test_a_fit_is_described(fitted: Fit) -> None:
    assert (fitted.examples, fitted.validation_examples, fitted.seed) == (4000, 0, 0)
    assert fitted.seconds > 0
    assert fitted.device == "CPU" or fitted.device.startswith("GPU: ")


def test_the_articles_network_reads_most_digits(mnist: Dataset) -> None:
    recipe = RECIPES["perceptron"].stretched(len(mnist.train))
    accuracy = evaluate(fit(recipe, mnist.train, seed=0).model, mnist.test).accuracy
    assert 0.86 < accuracy < 0.93
