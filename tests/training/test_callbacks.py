"""Keras callbacks: best weights, and deferred Ctrl-C."""

import os
import signal

import keras
import numpy as np
import pytest

from digit_training.callbacks import BestWeights, defer_interrupt


@pytest.fixture
def model() -> keras.Model:
    return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])


@pytest.mark.parametrize(
    ("losses", "expected"), [([0.3, 0.2, 0.2], 2), ([float("nan")] * 2, 1), ([None] * 3, 3)]
)
@pytest.mark.parametrize("name", ["val_loss", "val_probabilities_loss"])
def test_best_weights_are_those_of_the_lowest_validation_loss_else_of_the_last_epoch(
    model: keras.Model, losses: list[float | None], expected: int, name: str
) -> None:
    best_weights = BestWeights()
    best_weights.set_model(model)
    best_weights.on_train_begin()
    for epoch, loss in enumerate(losses):
        model.set_weights([np.full_like(weights, epoch + 1) for weights in model.get_weights()])
        best_weights.on_epoch_end(epoch, {} if loss is None else {"val_loss": -epoch, name: loss})
    assert best_weights.best_epoch + 1 == expected
    assert all((weights == expected).all() for weights in best_weights.best_weights)


@pytest.mark.parametrize("phase", ["train", "test"])
def test_defer_interrupt_first_sigint_raises_at_the_end_of_the_batch(model: keras.Model, phase: str) -> None:
    begun: list[int] = []
    ended: list[int] = []

    def begin(batch: int, logs: object) -> None:
        begun.append(batch)
        if batch == 2:
            os.kill(os.getpid(), signal.SIGINT)

    def end(batch: int, logs: object) -> None:
        ended.append(batch)

    recorder = keras.callbacks.LambdaCallback(
        **{f"on_{phase}_batch_begin": begin, f"on_{phase}_batch_end": end}
    )
    handler = signal.getsignal(signal.SIGINT)
    model.compile("sgd", "mse")
    run = model.fit if phase == "train" else model.evaluate
    with pytest.raises(KeyboardInterrupt), defer_interrupt() as interrupt:
        run(np.zeros((5, 1)), np.zeros(5), batch_size=1, callbacks=[recorder, interrupt], verbose=0)
    assert begun == ended == [0, 1, 2]
    assert signal.getsignal(signal.SIGINT) is handler


def test_defer_interrupt_second_sigint_raises_at_once() -> None:
    def send_twice() -> None:
        with defer_interrupt():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        send_twice()
