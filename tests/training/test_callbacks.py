"""Keras callbacks: best weights, deferred Ctrl-C and the progress display."""

import io
import os
import signal
from contextlib import closing

import keras
import numpy as np
import pytest
from rich.console import Console

from digit_training import models
from digit_training.callbacks import BestWeights, FitProgress, class_logs, defer_interrupt

SHOW_CURSOR = "\x1b[?25h"


@pytest.fixture
def model() -> keras.Model:
    return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([0.3, 0.1, 0.2], 2),
        ([0.3, 0.2, 0.2], 2),
        ([float("nan"), float("nan")], 1),
        ([None, None, None], 3),
    ],
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


def test_class_logs_strip_the_name_of_the_output() -> None:
    logs = {"loss": 0.5, "is_digit_loss": 0.3, "probabilities_loss": 0.2, "val_probabilities_accuracy": 0.9}
    assert class_logs(logs) == {"loss": 0.2, "val_accuracy": 0.9}
    assert class_logs({"loss": 0.5, "accuracy": 0.9}) == {"loss": 0.5, "accuracy": 0.9}


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


def display_output(epochs: int, is_terminal: bool, networks: int = 1) -> str:
    """Return the output for fits of `networks` networks with `epochs` epochs of one batch each."""
    file = io.StringIO()
    console = Console(file=file, width=120, force_terminal=is_terminal, highlight=False)
    with closing(FitProgress(console, networks)) as progress:
        progress.set_model(models.perceptron())
        progress.set_params({"epochs": epochs, "steps": 1})
        for _ in range(networks):
            progress.on_train_begin()
            for epoch in range(epochs):
                logs = {"loss": 0.5, "accuracy": 0.8}
                progress.on_epoch_begin(epoch)
                progress.on_train_batch_end(0, logs)
                progress.on_epoch_end(epoch, logs | {"val_loss": 0.4, "val_accuracy": 0.9})
    return file.getvalue()


def test_fit_progress_prints_a_line_per_epoch_and_the_layers_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = display_output(2, is_terminal=False, networks=2).splitlines()
    assert lines == [
        f"network {network}/2, epoch {epoch}/2 loss 0.5000  accuracy 0.8000  validation 0.9000"
        for network in (1, 2)
        for epoch in (1, 2)
    ]
    assert capsys.readouterr().out.count("Trainable params: 7,960") == 1
    lines = display_output(45, is_terminal=False).splitlines()
    assert [line.split()[1] for line in lines][-2:] == ["42/45", "45/45"]
    assert len(lines) == 15


def test_fit_progress_on_terminal_has_a_bar_too_and_restores_the_cursor() -> None:
    output = display_output(2, is_terminal=True)
    for text in ("fit", "epoch 1/2", "epoch 2/2", "100%", "accuracy 0.8000"):
        assert text in output
    assert output.rstrip().endswith(SHOW_CURSOR)
