import io
import time
from contextlib import closing
from dataclasses import replace

import keras
import pytest
from rich.console import Console

from digit_training.dataset import Dataset
from digit_training.fit import fit
from digit_training.progress import FitDisplay
from digit_training.recipes import RECIPES


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
