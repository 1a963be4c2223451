"""HTML report of a model: a self-contained page with images as `data:` URIs and charts as SVG."""

import base64
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import keras
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from keras import activations, ops
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from digit_training.data import Examples
from digit_training.drawing.negatives import KINDS
from digit_training.evaluation import (
    Accuracy,
    Evaluation,
    Scored,
    accuracy_per_label,
    confusion_matrix,
    most_confused,
    reliability_bins,
    worst_mistakes,
)
from digit_training.fit import MAX_REFUSED, FitResult
from digit_training.pictures import LabelledPictures
from digit_training.quality_gate import Comparisons

SAMPLES_PER_DIGIT = 10
MAX_MISTAKES = 24
MAX_SHOWN_CLASSES = 20
"""Largest number of labels in a confusion matrix, and of rows of the tables that replace it."""

THUMBNAIL_SIDE = 160
"""Longest side of a picture in the page, in pixels."""

MAX_NEGATIVES = 10
"""Most refused, and most accepted, negatives shown of a kind."""

SATURATION_QUANTILE = 0.995
"""Quantile of the saliency's magnitude at which colours reach full opacity."""

POSITIVE_BGR = (212, 122, 40)
NEGATIVE_BGR = (52, 62, 220)
"""Blue and red that contrast with white and with black, and that colour-blind people can tell apart."""

MAX_INTERVALS = 5
"""Most intervals between the ticks of an axis."""

TICK_STEPS = [1, 2, 5, 10]
"""Allowed distances between ticks, times a power of ten. All divide 1: an accuracy axis has a tick at 1."""


@dataclass(frozen=True)
class Axis:
    """Axis from `low` to `high`, with the values of the ticks between them."""

    low: float
    high: float
    ticks: list[float]

    def position(self, value: float) -> float:
        """Return the value's position along the axis: 0 at its start, 1 at its end."""
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Curves:
    """A metric by epoch, with points (epoch from 1, value) by "training" and, if any, "validation"."""

    name: str
    x: Axis
    y: Axis
    lines: dict[str, list[tuple[int, float]]]


def render_page(
    card: dict[str, Any],
    pictures: LabelledPictures,
    evaluation: Evaluation,
    comparisons: Comparisons,
    fit: FitResult | None = None,
) -> str:
    """Return the report as HTML without external resources.

    `card` is the model card; `fit` is None for a model that was fitted elsewhere. Untrusted values, such as
    labels and the path of the data, are escaped.
    """
    environment = Environment(
        loader=PackageLoader("digit_training"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    task, labels, probabilities = pictures.task, pictures.examples.labels, evaluation.probabilities
    confusion = confusion_matrix(labels, probabilities)
    per_label = accuracy_per_label(confusion)
    axis = accuracy_axis(per_label.values())
    if len(per_label) > MAX_SHOWN_CLASSES:
        worst = sorted(per_label.items(), key=lambda item: item[1].ratio)
        per_label = dict(worst[:MAX_SHOWN_CLASSES])
    mistakes = worst_mistakes(labels, probabilities)
    samples, saliency = {}, []
    if fit:
        for digit in np.unique(fit.train.labels).tolist():
            first = fit.train.images[fit.train.labels == digit][:SAMPLES_PER_DIGIT]
            samples[digit] = data_uri(first)
        maps = saliency_maps(fit.model, pictures.examples)
        if maps is not None:
            limit = float(np.quantile(np.abs(maps), SATURATION_QUANTILE)) or 1.0
            saliency = [saliency_data_uri(values, limit) for values in maps]
    refusals = evaluation.refusals
    return environment.get_template("report.html").render(
        task=task,
        card=card,
        card_rows=list(_flatten(card)),
        fit=fit,
        evaluation=evaluation,
        comparisons=comparisons,
        test_count=len(pictures),
        left_out={"unreadable": pictures.unreadable, "refused in serving": pictures.refused},
        samples=samples,
        curves=learning_curves(fit.history) if fit else [],
        saliency=saliency,
        confusion=confusion.tolist() if len(task.labels) <= MAX_SHOWN_CLASSES else None,
        max_confused=int((confusion - np.diag(confusion.diagonal())).max()),
        confused=most_confused(confusion, MAX_SHOWN_CLASSES),
        per_label=per_label,
        accuracy_axis=axis,
        mistake_count=len(mistakes),
        mistakes=[
            {
                **_picture(pictures, index),
                "answer": task.labels[probabilities[index].argmax()],
                "confidence": float(probabilities[index].max()),
            }
            for index in mistakes[:MAX_MISTAKES].tolist()
        ],
        reliability=reliability_bins(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels),
        max_refused=MAX_REFUSED,
        refused=_refused(refusals.digits, pictures) if refusals else [],
        kinds=[_kind(name, scored) for name, scored in refusals.negatives.items()] if refusals else [],
    )


def saliency_maps(model: keras.Model, examples: Examples) -> NDArray[np.float32] | None:
    """Return the change of each digit's score per standard deviation of each pixel: float32 [10, 28, 28].

    The score is the digit's logit minus the mean of all ten, since softmax ignores a common offset. Its
    change is its mean slope over the examples, times the pixel's standard deviation, which is 0 for pixels
    that never have ink: their weights are still random.

    Return None unless the network is a sigmoid layer followed by a softmax layer.
    """
    functions = [getattr(layer, "activation", None) for layer in model.layers]
    if functions != [activations.sigmoid, activations.softmax]:
        return None
    pixels = examples.pixels
    first, second = (layer.get_weights()[0] for layer in model.layers)
    hidden = ops.convert_to_numpy(model.layers[0](pixels))
    slopes = first @ ((hidden * (1 - hidden)).mean(axis=0)[:, None] * second)
    slopes -= slopes.mean(axis=1, keepdims=True)
    result: NDArray[np.float32] = (slopes * pixels.std(axis=0)[:, None]).T.reshape(10, 28, 28)
    return result


def data_uri(images: NDArray[np.uint8]) -> str:
    """Return images uint8 [n, h, w] or [n, h, w, c], side by side, as a PNG data URI.

    If they are larger than THUMBNAIL_SIDE, they are scaled down to it.
    """
    row = np.hstack(list(images))
    scale = min(1, THUMBNAIL_SIDE / max(images.shape[1:3]))
    if scale < 1:
        height, width = (max(1, round(scale * side)) for side in row.shape[:2])
        row = cv2.resize(row, (width, height), interpolation=cv2.INTER_AREA)
    return _png_data_uri(cv2.cvtColor(row, cv2.COLOR_RGB2BGR) if row.shape[2:] == (3,) else row)


def saliency_data_uri(values: NDArray[np.float32], limit: float) -> str:
    """Return values float32 [28, 28] as a PNG data URI: blue above 0, red below.

    The opacity grows with the magnitude, from transparent at 0 to opaque at `limit`.
    """
    colors = np.where(values[:, :, None] > 0, np.array(POSITIVE_BGR), np.array(NEGATIVE_BGR))
    opacity = np.minimum(np.abs(values[:, :, None]) / limit, 1) * 255
    return _png_data_uri(np.dstack((colors, opacity)).astype(np.uint8))


def _png_data_uri(image: NDArray[np.uint8]) -> str:
    png = cv2.imencode(".png", image)[1].tobytes()
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _picture(pictures: LabelledPictures, index: int) -> dict[str, Any]:
    return {
        "name": pictures.names[index],
        "image": data_uri(pictures.examples.images[index : index + 1]),
        "label": pictures.task.labels[pictures.examples.labels[index]],
    }


def _refused(digits: Scored, pictures: LabelledPictures) -> list[dict[str, Any]]:
    """Return the refused digits, the surest first."""
    surest = digits.surest_first(refused=True)[:MAX_MISTAKES].tolist()
    return [{**_picture(pictures, index), "is_digit": float(digits.is_digit[index])} for index in surest]


def _kind(name: str, scored: Scored) -> dict[str, Any]:
    images = {
        answer: scored.images[scored.surest_first(refused)[:MAX_NEGATIVES]]
        for answer, refused in (("refused", True), ("accepted", False))
    }
    return {
        "name": name,
        "held_out": KINDS[name].is_held_out,
        "share": scored.refused_share,
        **{answer: data_uri(shown) if len(shown) else None for answer, shown in images.items()},
        "widths": {answer: len(shown) for answer, shown in images.items()},
    }


def _flatten(card: dict[str, Any], *parents: str) -> Iterator[tuple[str, str]]:
    """Yield each value of the card with its dotted key, such as "fit.seed"."""
    for key, value in card.items():
        if isinstance(value, dict):
            yield from _flatten(value, *parents, key)
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            yield ".".join((*parents, key)), text


def learning_curves(history: dict[str, list[float]]) -> list[Curves]:
    """Return the curves of loss and accuracy from Keras's history.

    They omit NaN and infinity: a fit may diverge after its best epoch.
    """
    epochs = len(history["loss"])
    x = Axis(0.5, 1.5, [1])
    if epochs > 1:
        x = Axis(1, epochs, [tick for tick in _ticks(1, epochs, integer=True) if 1 <= tick <= epochs])
    curves = []
    for name in ("loss", "accuracy"):
        lines = {
            title: [(epoch, value) for epoch, value in enumerate(history[key], 1) if math.isfinite(value)]
            for title, key in (("training", name), ("validation", f"val_{name}"))
            if key in history
        }
        values = [value for points in lines.values() for _, value in points]
        # The bound of 0.99 keeps the axis from being empty if all accuracies are 1.
        y = _value_axis(0, max(values)) if name == "loss" else _value_axis(min(*values, 0.99), 1)
        curves.append(Curves(name, x, y, lines))
    return curves


def accuracy_axis(accuracies: Iterable[Accuracy]) -> Axis:
    """Return an axis that contains all confidence intervals and ends at 1."""
    return _value_axis(min(accuracy.interval[0] for accuracy in accuracies), 1)


def _value_axis(low: float, high: float) -> Axis:
    """Return an axis from a tick at or below `low` to a tick at or above `high`."""
    ticks = _ticks(low, high)
    return Axis(ticks[0], ticks[-1], ticks)


def _ticks(low: float, high: float, integer: bool = False) -> list[float]:
    locator = MaxNLocator(MAX_INTERVALS, steps=TICK_STEPS, integer=integer)
    return [float(tick) for tick in locator.tick_values(low, high)]
