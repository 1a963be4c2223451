"""Fit of the reader: a short one learns, and goes on after an interruption."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from digit_training.data import Examples
from digit_training.detector import STRIDE, TARGETS
from digit_training.reader.fitting import DrawnPages, Plan, fit
from digit_training.reader.handwriting import GlyphBank
from digit_training.reader.pages import PAGE_SHAPE, PageWriter

PLAN = Plan(epochs=3, batch_size=4, steps_per_epoch=8, glyphs=40)


@pytest.fixture(scope="module")
def examples(digits: Any) -> Examples:
    return Examples(digits.images[:500], digits.labels[:500])


def test_drawn_pages_depend_on_seed_epoch_and_index(examples: Examples) -> None:
    writer = PageWriter(GlyphBank(examples, 40, np.random.default_rng(0)))
    one, again, other = (DrawnPages(writer, replace(PLAN, seed=seed)) for seed in (5, 5, 6))
    levels, targets = one[2]
    assert (len(one), levels.dtype) == (PLAN.steps_per_epoch, np.uint8)
    assert levels.shape == (4, *PAGE_SHAPE, 1)
    assert targets.shape == (4, *(side // STRIDE for side in PAGE_SHAPE), TARGETS)
    assert all(map(np.array_equal, one[2], again[2]))
    again.on_epoch_end()
    for different in (one[3], other[2], again[2]):
        assert not np.array_equal(levels, different[0])


class Losses(keras.callbacks.Callback):  # type: ignore[misc]
    """Loss of each epoch, by its number; interrupts the fit before the epoch `stop_before`."""

    def __init__(self, stop_before: int = 99) -> None:
        super().__init__()
        self.of: dict[int, float] = {}
        self.stop_before = stop_before

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.of[epoch] = (logs or {})["loss"]

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if epoch == self.stop_before:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_fit_learns_and_goes_on_after_an_interruption(examples: Examples, tmp_path: Path) -> None:
    first, rest = Losses(stop_before=2), Losses()
    with pytest.raises(KeyboardInterrupt):
        fit(examples, PLAN, [keras.callbacks.BackupAndRestore(tmp_path), first])
    fit(examples, PLAN, [keras.callbacks.BackupAndRestore(tmp_path), rest])
    assert ([*first.of], [*rest.of]) == ([0, 1], [2])
    assert rest.of[2] < first.of[0]
