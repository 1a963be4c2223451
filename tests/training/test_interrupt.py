import os
import signal

import keras
import pytest

from digit_training.dataset import Dataset
from digit_training.fit import fit
from digit_training.interrupt import between_batches
from digit_training.recipes import RECIPES


def test_ctrl_c_waits_for_the_end_of_the_batch_and_keeps_the_best_epoch(dataset: Dataset) -> None:
    ended: list[int] = []

    def begin(batch: int, logs: object) -> None:
        if len(ended) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            reached.append(batch)

    reached: list[int] = []
    callback = keras.callbacks.LambdaCallback(
        on_train_batch_begin=begin, on_epoch_end=lambda epoch, _logs: ended.append(epoch)
    )
    before = signal.getsignal(signal.SIGINT)
    result = fit(RECIPES["perceptron"].lasting(5), dataset.train[:600], 0, [callback])
    assert len(reached) == 1, "the batch under way was neither cut short nor followed by another"
    assert result.epochs == 2
    assert not result.complete
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_again_does_not_wait() -> None:
    def press_twice() -> None:
        with between_batches():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        press_twice()
