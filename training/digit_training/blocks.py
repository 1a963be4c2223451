"""Training steps by the block: one call of TensorFlow makes many of them."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

Block = tuple[Any, Any]
Logs = dict[str, Any]


def by_block(model: keras.Model, batch_size: int) -> Callable[[Block], Logs]:
    """A training step that takes a block of batches and makes the model's own step of each of them.

    A block is tensors of pixels [n, 784] and labels [n]; its last batch is what is left of it. Blocks of
    a multiple of the batch size lead to the very steps that their batches would have led to one by one.
    The model measures its accuracy and nothing else.
    """
    step = model.train_step

    def train(block: Block) -> Logs:
        pixels, labels = block
        count = ops.shape(labels)[0]
        whole, left = count // batch_size, count % batch_size

        def batch(number: Any, size: Any) -> Logs:
            first = number * batch_size
            rows = ops.slice(pixels, (first, 0), (size, pixels.shape[1]))
            logs: Logs = step((rows, ops.slice(labels, (first,), (size,))))
            return logs

        # XLA compiles the loop also for a block that is shorter than a batch, and doesn't run through it.
        size = ops.minimum(batch_size, count)
        none = {"accuracy": 0.0, "loss": 0.0}
        logs = ops.fori_loop(0, whole, lambda number, _: batch(number, size), none)
        last: Logs = ops.cond(left > 0, lambda: batch(whole, left), lambda: logs)
        return last

    return train
