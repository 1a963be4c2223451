"""Speed of `digits train --model perceptron` compared with the article's Keras code, in alternation.

CPU time hardly depends on the machine's other load. Run as python -m benchmarks.training mnist.npz.
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
    print_row("seconds (of CPU)", "the article", "digits train", "times faster", "difference")
    ratios = []
    for seed in range(ROUNDS):
        article_model, (article_seconds, article_cpu) = timed(partial(article, examples, seed))
        our_model, (our_seconds, our_cpu) = timed(partial(ours, examples, seed))
        ratios.append((article_seconds / our_seconds, article_cpu / our_cpu))
        print_row(
            f"seed {seed}",
            f"{article_seconds:.1f} ({article_cpu:.1f})",
            f"{our_seconds:.1f} ({our_cpu:.1f})",
            "{:.1f} ({:.1f})".format(*ratios[-1]),
            f"{largest_difference(article_model, our_model):.0e}",
        )
    print_row("median", "", "", "{:.1f} ({:.1f})".format(*map(statistics.median, zip(*ratios, strict=True))))


def article(examples: Examples, seed: int) -> keras.Model:
    """Fit the network as the article does, on pixels prepared as in `fit`."""
    keras.utils.set_random_seed(seed)
    model = RECIPE.build()
    model.compile(
        optimizer=keras.optimizers.SGD(0.01), loss="sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(examples.pixels, examples.labels, epochs=10, batch_size=32, verbose=0)
    return model


def ours(examples: Examples, seed: int) -> keras.Model:
    """Fit the network as `digits train` does."""
    return fit(RECIPE, examples, seed).model


def timed(work: Callable[[], keras.Model]) -> tuple[keras.Model, tuple[float, float]]:
    """Return the fitted model, and the elapsed and CPU seconds."""
    started, cpu = time.monotonic(), time.process_time()
    model = work()
    return model, (time.monotonic() - started, time.process_time() - cpu)


def largest_difference(one: keras.Model, other: keras.Model) -> float:
    """Return the largest absolute difference between the weights of two models."""
    pairs = zip(one.get_weights(), other.get_weights(), strict=True)
    return max(float(np.abs(first - second).max()) for first, second in pairs)


def print_row(*columns: str) -> None:
    """Print a row."""
    name, *figures = columns
    sys.stdout.write(f"{name:20}" + "".join(f"{figure:>16}" for figure in figures) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
