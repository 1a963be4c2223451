"""."""

import io
import os
import signal
import time
from contextlib import closing
from dataclasses import replace

import keras
import numpy as np
import pytest
from rich.console import Console

from digit_training.callbacks import BestEpoch, FitDisplay, between_batches
from digit_training.data import Dataset
from digit_training.fit import fit
from digit_training.recipes import RECIPES


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


def shown(dataset: Dataset, name: str, epochs: int, terminal: bool, networks: int = 1) -> str:
    file = io.StringIO()
    console = Console(file=file, width=120, force_terminal=terminal)
    with closing(FitDisplay(console, networks)) as display:
        fit(replace(RECIPES[name].lasting(epochs), networks=networks), dataset.train[:240], 0, [display])
    return file.getvalue()


def test_without_a_terminal_each_epoch_is_a_line(
    dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown(dataset, "quick", 3, terminal=False).splitlines()
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]
    assert all("loss" in line and "accuracy" in line and "validation" in line for line in lines)
    assert "135,594" in capsys.readouterr().out


def test_on_a_terminal_each_epoch_keeps_its_bar(dataset: Dataset) -> None:
    screen = shown(dataset, "perceptron", 2, terminal=True)
    assert "epoch 1/2" in screen
    assert "epoch 2/2" in screen
    assert "100%" in screen
    assert "accuracy" in screen


def test_several_networks_are_counted_and_their_layers_shown_once(
    dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown(dataset, "perceptron", 2, terminal=False, networks=2).splitlines()
    assert [line.partition(" loss")[0] for line in lines] == [
        "network 1/2, epoch 1/2",
        "network 1/2, epoch 2/2",
        "network 2/2, epoch 1/2",
        "network 2/2, epoch 2/2",
    ]
    assert capsys.readouterr().out.count("Trainable params") == 1


def test_an_interrupted_fit_gives_the_cursor_back(dataset: Dataset) -> None:
    file = io.StringIO()

    def interrupt(batch: int, logs: object) -> None:
        raise KeyboardInterrupt

    with closing(FitDisplay(Console(file=file, force_terminal=True))) as display:
        callbacks = [display, keras.callbacks.LambdaCallback(on_train_batch_end=interrupt)]
        with pytest.raises(KeyboardInterrupt):
            fit(RECIPES["perceptron"], dataset.train[:240], 0, callbacks)
    show_cursor = "\x1b[?25h"
    assert file.getvalue().rstrip().endswith(show_cursor)


@pytest.mark.parametrize(("epochs", "networks"), [(4, 1), (2, 2)])
def test_the_time_left_is_that_of_the_whole_fit(dataset: Dataset, epochs: int, networks: int) -> None:
    seen: list[tuple[float, str]] = []

    def note(batch: int, logs: object) -> None:
        spent = time.perf_counter() - display.started
        seen.append((spent, display.bar.tasks[-1].fields["left"]))

    recipe = replace(RECIPES["perceptron"].lasting(epochs), networks=networks)
    with closing(FitDisplay(Console(file=io.StringIO()), networks)) as display:
        callbacks = [display, keras.callbacks.LambdaCallback(on_train_batch_end=note)]
        fit(recipe, dataset.train[:240], 0, callbacks)
    # 240 examples are a single block: a quarter of the fit.
    expected = [spent * (4 / done - 1) for done, (spent, _) in enumerate(seen, 1)]
    shown = [int(left[0]) * 60 + int(left[2:4]) for _, left in seen]
    assert len(shown) == 4
    assert shown == pytest.approx(expected, abs=1)


def test_of_many_epochs_some_are_shown(dataset: Dataset) -> None:
    lines = shown(dataset, "perceptron", 45, terminal=False).splitlines()
    assert [line.split()[1] for line in lines][-2:] == ["42/45", "45/45"]
    assert len(lines) == 15
