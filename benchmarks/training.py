"""How much faster `digits train --model perceptron` fits than the article's own lines of Keras: both in turn.

CPU time hardly depends on what else the machine does. Run as python -m benchmarks.training mnist.npz.
"""

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import keras
import numpy as np

from digit_training import data
from digit_training.data import Examples
from digit_training.fit import fit
from digit_training.recipes import RECIPES

RECIPE = RECIPES["perceptron"]
ROUNDS = 3


def main(mnist: Path) -> None:
    """Print a row for each round, and the medians of the ratios."""
    examples = data.load(mnist).train
    line("seconds (of CPU)", "the article", "digits train", "times faster", "apart")
    ratios = []
    for seed in range(ROUNDS):
        plain, (theirs, their_cpu) = timed(partial(article, examples, seed))
        fitted, (mine, my_cpu) = timed(partial(ours, examples, seed))
        ratios.append((theirs / mine, their_cpu / my_cpu))
        line(
            f"seed {seed}",
            f"{theirs:.1f} ({their_cpu:.1f})",
            f"{mine:.1f} ({my_cpu:.1f})",
            "{:.1f} ({:.1f})".format(*ratios[-1]),
            f"{apart(plain, fitted):.0e}",
        )
    line("median", "", "", "{:.1f} ({:.1f})".format(*map(statistics.median, zip(*ratios, strict=True))))


def article(examples: Examples, seed: int) -> keras.Model:
    """The network as the article fits it, with its pixels made ready as in `fit`."""
    keras.utils.set_random_seed(seed)
    model = RECIPE.build()
    model.compile(
        optimizer=keras.optimizers.SGD(0.01), loss="sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(examples.pixels, examples.labels, epochs=10, batch_size=32, verbose=0)
    return model


def ours(examples: Examples, seed: int) -> keras.Model:
    """As `digits train` does."""
    return fit(RECIPE, examples, seed).model


def timed(work: Callable[[], keras.Model]) -> tuple[keras.Model, tuple[float, float]]:
    """A model, and how many seconds it took, of time and of CPU time."""
    started, cpu = time.perf_counter(), time.process_time()
    model = work()
    return model, (time.perf_counter() - started, time.process_time() - cpu)


def apart(one: keras.Model, other: keras.Model) -> float:
    """The largest difference of two weights."""
    pairs = zip(one.get_weights(), other.get_weights(), strict=True)
    return max(float(np.abs(first - second).max()) for first, second in pairs)


def line(*columns: str) -> None:
    """Print a row."""
    name, *figures = columns
    sys.stdout.write(f"{name:20}" + "".join(f"{figure:>16}" for figure in figures) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
