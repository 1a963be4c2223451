"""Recipes: hyperparameters, overrides and learning rate schedules."""

import pytest

from digit_training.recipes import RECIPES, adamw


def test_with_changes_keeps_the_other_values_and_the_share_of_mild_epochs() -> None:
    recipe = RECIPES["quick"]
    changed = recipe.with_changes(epochs=10, batch_size=7)
    assert (changed.epochs, changed.mild_epochs, changed.batch_size) == (10, 2 * recipe.mild_epochs, 7)
    assert changed.learning_rate == recipe.learning_rate
    assert recipe.with_changes(epochs=1).mild_epochs == 0


def test_fine_tuning_is_shorter_and_keeps_a_mild_epoch() -> None:
    tuned = RECIPES["quick"].fine_tuning()
    assert (tuned.epochs, tuned.mild_epochs) == (2, 1)
    perceptron = RECIPES["perceptron"].fine_tuning()
    assert (perceptron.epochs, perceptron.mild_epochs) == (4, 0)


@pytest.mark.parametrize("name", RECIPES)
def test_scaled_to_few_examples_keeps_the_number_of_steps(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.scaled_to(4000).epochs * 4000 == recipe.epochs * 60_000
    assert recipe.scaled_to(60_000) == recipe


@pytest.mark.parametrize(("steps", "expected"), [(0, 0.0002), (50, 0.002), (1000, 0)])
def test_adamw_learning_rate_warms_up_and_decays_to_0(steps: int, expected: float) -> None:
    optimizer = adamw(0.002, 1000)
    optimizer.iterations.assign(steps)
    assert float(optimizer.learning_rate) == pytest.approx(expected, abs=1e-6)
