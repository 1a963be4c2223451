"""Pictures of digits, as PNG files."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from digit_training.data import Examples

INK = "#1f4e79"
FAINT = "#c9d6e3"


def digits(examples: Examples, path: Path) -> None:
    """The first twenty examples, or all of fewer, each under its label."""
    figure = _figure(10, 2.8)
    grid = list(figure.subplots(2, 10).flat)
    for axes in grid:
        axes.set_axis_off()
    for axes, image, label in zip(grid, examples.images, examples.labels, strict=False):
        _digit(axes, image)
        axes.set_title(str(label))
    figure.savefig(path)


def prediction(examples: Examples, index: int, probabilities: NDArray[np.float32], path: Path) -> None:
    """One example beside the ten probabilities that a model gives its image."""
    figure = _figure(8, 3.2)
    left, right = figure.subplots(1, 2, width_ratios=(1, 2))
    _digit(left, examples.images[index])
    left.set_title(f"labelled {examples.labels[index]}")
    answer = int(probabilities.argmax())
    bars = right.bar(
        range(10), probabilities, color=[INK if digit == answer else FAINT for digit in range(10)]
    )
    right.bar_label(bars, [f"{100 * p:.1f}" for p in probabilities], fontsize=8, padding=2)
    right.set(title=f"read as {answer}", ylabel="probability, %", xticks=range(10), ylim=(0, 1.08), yticks=[])
    right.spines[["top", "right", "left"]].set_visible(False)
    figure.savefig(path)


def _figure(width: float, height: float) -> Figure:
    # Without pyplot, which would look for a screen and keep every figure alive.
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _digit(axes: Axes, image: NDArray[np.uint8]) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=255)
    axes.set_axis_off()
