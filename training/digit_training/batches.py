"""What an augmented fit is fed with, batch by batch, on every backend of Keras."""

import math

import keras
import numpy as np
from numpy.typing import NDArray

from digit_training.augment import ANYBODY, CAREFUL, augment
from digit_training.dataset import Examples

STEPS_PER_EXECUTION = 25
"""Steps that are run as one call, for each of which Keras fetches a batch."""


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """The examples in another order each epoch, each written anew each time.

    A batch is pixels float32 [batch size, 784], 0..1, and labels uint8 [batch size]; it depends on nothing
    but the seed, the epoch and its index, so that a thread that reads ahead changes nothing. From the epoch
    `careful_from` on, which counts from 0, they are written with more care, and where `first` is given it is
    the first so many of the examples, some of them twice.
    """

    def __init__(
        self,
        examples: Examples,
        batch_size: int,
        seed: int,
        careful_from: float = math.inf,
        first: int | None = None,
    ) -> None:
        # With one thread TensorFlow tunes its reader, and an epoch ends when the tuner next wakes up: up to
        # twice as late. With two, other backends read some batches of the first epoch twice.
        workers = 2 if keras.backend.backend() == "tensorflow" else 1
        super().__init__(workers=workers, max_queue_size=2 * STEPS_PER_EXECUTION)
        self.careful_from = careful_from
        self.first = first
        self.examples = examples
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self.order = self._shuffled()

    def __len__(self) -> int:
        return -(-len(self.examples) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        batch = self.examples[rows]
        rng = np.random.default_rng([self.seed, self.epoch, index])
        hand = CAREFUL if self._is_careful else ANYBODY
        return Examples(augment(batch.images, rng, hand), batch.labels).pixels, batch.labels

    def begin(self, epoch: int) -> None:
        """Before an epoch, which counts from 0.

        Keras's own calls come once too often, and while its threads are reading.
        """
        self.epoch = epoch
        self.order = self._shuffled()

    @property
    def _is_careful(self) -> bool:
        return self.epoch >= self.careful_from

    def _shuffled(self) -> NDArray[np.intp]:
        count = self.first if self.first and self._is_careful else len(self.examples)
        order = np.random.default_rng([self.seed, self.epoch]).permutation(count)
        # Keras counts the batches of the first epoch.
        return np.resize(order, len(self.examples))
