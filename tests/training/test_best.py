import keras
import numpy as np
import pytest

from digit_training.best import BestEpoch


@pytest.fixture
def model() -> keras.Model:
    return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])


def after(model: keras.Model, losses: list[float | None]) -> BestEpoch:
    """The callback after epochs of these losses, which left their number in each weight."""
    best = BestEpoch()
    best.set_model(model)
    for epoch, loss in enumerate(losses):
        model.set_weights([np.full_like(weights, epoch + 1) for weights in model.get_weights()])
        best.on_epoch_end(epoch, {} if loss is None else {"val_loss": loss})
    return best


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([0.3, 0.1, 0.2], 2),
        ([0.3, 0.2, 0.2], 2),
        ([float("nan"), float("nan")], 1),
        ([None, None, None], 3),
    ],
)
def test_the_lowest_loss_is_kept_or_else_the_last(
    model: keras.Model, losses: list[float | None], expected: int
) -> None:
    best = after(model, losses)
    model.set_weights([np.zeros_like(weights) for weights in model.get_weights()])
    best.restore()
    assert (best.epoch, best.ended) == (expected, len(losses))
    assert all((weights == expected).all() for weights in model.get_weights())
