import keras
import numpy as np
import pytest

from digit_training.blocks import by_block
from digit_training.dataset import Dataset
from digit_training.models import perceptron
from digit_training.recipes import sgd


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
