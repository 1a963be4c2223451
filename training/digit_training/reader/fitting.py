"""Fit of the detector to pages that are drawn during the fit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from digit_training.callbacks import verbosity
from digit_training.data import Examples
from digit_training.detector import detection_loss, detector, stretch, targets
from digit_training.reader.handwriting import GlyphBank
from digit_training.reader.pages import PAGE_SHAPE, PageWriter
from digit_training.recipes import FINE_TUNING_EPOCHS

Batch = tuple[Any, Any]


@dataclass(frozen=True)
class Plan:
    """Hyperparameters of the fit; the defaults take about an hour on two cores."""

    epochs: int = 50
    batch_size: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warm_up: int = 500
    """Steps until the learning rate is reached; it falls to 0 along a cosine afterwards."""
    steps_per_epoch: int = 500
    glyphs: int = 6000
    """Glyphs of each origin."""
    seed: int = 0

    def fine_tuning(self) -> "Plan":
        """Return the plan of a fit that starts from a fitted network: fewer epochs."""
        return replace(self, epochs=math.ceil(self.epochs * FINE_TUNING_EPOCHS))

    @property
    def steps(self) -> int:
        """Number of steps of the whole fit."""
        return self.epochs * self.steps_per_epoch


class DrawnPages(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of drawn pages: levels uint8 [n, h, w, 1] and targets; the same seed draws the same pages."""

    def __init__(self, writer: PageWriter, plan: Plan) -> None:
        # Keras draws in a thread beside the fit, which is outside of Python most of the time.
        super().__init__(workers=1, max_queue_size=24)
        self._writer = writer
        self._plan = plan
        self._epoch = 0

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return self._plan.steps_per_epoch

    def __getitem__(self, index: int) -> Batch:
        """Draw a batch."""
        rng = np.random.default_rng([self._plan.seed, self._epoch, index])
        pages = [self._writer.draw(rng) for _ in range(self._plan.batch_size)]
        levels = np.stack([page.pixels for page in pages])[..., np.newaxis]
        return levels, np.stack([targets(page.boxes, page.classes, PAGE_SHAPE) for page in pages])

    def on_epoch_end(self) -> None:
        """Draw other pages in the next epoch."""
        self._epoch += 1


@keras.saving.register_keras_serializable("digits")
class Stretch(keras.layers.Layer):  # type: ignore[misc]
    """Layer that stretches the contrast of each page."""

    def call(self, levels: Any) -> Any:
        """Return `stretch` of the levels."""
        return stretch(keras.ops.cast(levels, "float32"))


def fit(
    digits: Examples,
    plan: Plan,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    weights: Sequence[NDArray[np.float32]] = (),
) -> keras.Model:
    """Fit a detector, from the weights if there are any; `digits` are MNIST's training digits.

    With Keras's BackupAndRestore among the `callbacks`, another call of the same arguments goes on after the
    last epoch.
    """
    keras.utils.set_random_seed(plan.seed)
    bank = GlyphBank(digits, plan.glyphs, np.random.default_rng(plan.seed))
    warm_up = min(plan.warm_up, plan.steps // 4)
    schedule = keras.optimizers.schedules.CosineDecay(
        plan.learning_rate / 20,
        plan.steps - warm_up,
        warmup_target=plan.learning_rate,
        warmup_steps=warm_up,
    )
    network = detector()
    if weights:
        network.set_weights(weights)
    levels = keras.Input((None, None, 1), dtype="uint8", name="levels")
    trained = keras.Model(levels, network(Stretch()(levels)), name="reader_on_levels")
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=plan.weight_decay, clipnorm=5.0)
    trained.compile(optimizer, loss=detection_loss)
    trained.fit(
        DrawnPages(PageWriter(bank), plan),
        epochs=plan.epochs,
        callbacks=[*callbacks],
        verbose=verbosity(),
    )
    return network
