import pytest

from digit_training.recipes import RECIPES, adamw


def test_the_perceptron_is_fitted_as_in_the_article() -> None:
    recipe = RECIPES["perceptron"]
    assert (recipe.epochs, recipe.batch_size, recipe.holdout) == (10, 32, 0)
    optimizer = recipe.optimizer(recipe.learning_rate, 1)
    assert type(optimizer).__name__ == "SGD"
    assert float(optimizer.learning_rate) == pytest.approx(0.01)


def test_what_the_user_sets_replaces_the_recipe() -> None:
    recipe = RECIPES["quick"]
    changed = recipe.adjusted(batch_size=7, learning_rate=None).lasting(3)
    assert (changed.epochs, changed.batch_size) == (3, 7)
    assert changed.learning_rate == recipe.learning_rate


def test_the_careful_epochs_are_the_same_share_of_any_number() -> None:
    quick = RECIPES["quick"]
    assert [quick.lasting(epochs).careful / epochs for epochs in (5, 10, 160)] == [
        quick.careful / quick.epochs
    ] * 3
    assert quick.lasting(1).careful == 0


@pytest.mark.parametrize("name", RECIPES)
def test_few_examples_are_fitted_in_as_many_steps(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.stretched(4000).epochs * 4000 == recipe.epochs * 60_000
    assert recipe.stretched(60_000) == recipe


def test_the_rate_warms_up_and_falls_to_nothing() -> None:
    schedule = adamw(0.002, 1000)._learning_rate
    assert float(schedule(0)) == pytest.approx(0.0002)
    assert float(schedule(50)) == pytest.approx(0.002)
    assert float(schedule(1000)) == pytest.approx(0, abs=1e-6)
