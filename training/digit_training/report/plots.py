"""PNG plots of digits and of a prediction, drawn by Matplotlib."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from digit_training.data import Examples

ANSWER_COLOR = "#1f4e79"
OTHER_COLOR = "#c9d6e3"


def save_samples(examples: Examples, path: Path) -> None:
    """Draw the first twenty examples, or all if there are fewer, each under its label."""
    figure = _figure(10, 2.8)
    grid = figure.subplots(2, 10, subplot_kw={"xticks": [], "yticks": [], "frame_on": False})
    for axes, image, label in zip(grid.flat, examples.images, examples.labels, strict=False):
        _draw_digit(axes, image)
        axes.set_title(str(label))
    figure.savefig(path)


def save_prediction(examples: Examples, index: int, probabilities: NDArray[np.float32], path: Path) -> None:
    """Draw one example beside the model's ten probabilities for it, [10]."""
    figure = _figure(8, 3.2)
    left, right = figure.subplots(1, 2, width_ratios=(1, 2))
    _draw_digit(left, examples.images[index])
    left.set_title(f"label {examples.labels[index]}")
    answer = int(probabilities.argmax())
    colors = [ANSWER_COLOR if digit == answer else OTHER_COLOR for digit in range(10)]
    bars = right.bar(range(10), probabilities, color=colors)
    right.bar_label(bars, [f"{100 * p:.1f}" for p in probabilities], fontsize=8, padding=2)
    right.set(
        title=f"prediction {answer}",
        ylabel="probability, %",
        xticks=range(10),
        ylim=(0, 1.08),
        yticks=[],
    )
    right.spines[["top", "right", "left"]].set_visible(False)
    figure.savefig(path)


def _figure(width: float, height: float) -> Figure:
    # Figure instead of pyplot, which looks for a display and keeps every figure in memory.
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _draw_digit(axes: Axes, image: NDArray[np.uint8]) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=255)
    axes.set_axis_off()
