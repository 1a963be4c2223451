"""Digits as pictures that a page carries within itself: PNG files as `data:` addresses."""

import base64
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from digit_training.data import Dataset, Examples
from digit_training.evaluation import (
    Evaluation,
    accuracy_per_digit,
    confusion_matrix,
    reliability_bins,
    worst_mistakes,
)
from digit_training.fit import Fit
from digit_training.report import charts
from digit_training.report.saliency import evidence

FOR = (212, 122, 40)
AGAINST = (52, 62, 220)
"""Blue and red, in OpenCV's order, that stand out from white and from black, and for the colour-blind."""


def digits(images: NDArray[np.uint8]) -> str:
    """Images uint8 [n, 28, 28] side by side."""
    return _data(np.hstack(list(images)))


def signed(values: NDArray[np.float32], limit: float) -> str:
    """Values float32 [28, 28]: blue above 0, red below, the page's ground at 0, full colour from `limit`."""
    colours = np.where(values[:, :, None] > 0, np.array(FOR), np.array(AGAINST))
    strength = np.minimum(np.abs(values[:, :, None]) / limit, 1) * 255
    return _data(np.dstack((colours, strength)).astype(np.uint8))


def _data(image: NDArray[np.uint8]) -> str:
    png = cv2.imencode(".png", image)[1].tobytes()
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


SAMPLES = 10
"""Shown of each digit."""

MISTAKES = 24

FULL_COLOUR = 0.995
"""The share of the evidence that is weaker than what gets the full colour."""


def page(fit: Fit, dataset: Dataset, evaluation: Evaluation, card: dict[str, Any]) -> str:
    """The page as HTML that needs nothing but itself; `card` is the model card in figures.

    Whatever comes from outside, such as the data's path, is escaped.
    """
    environment = Environment(
        loader=PackageLoader("digit_training.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    labels, probabilities = dataset.test.labels, evaluation.probabilities
    confusion = confusion_matrix(labels, probabilities)
    per_digit = accuracy_per_digit(confusion)
    mistakes = worst_mistakes(labels, probabilities)
    return environment.get_template("report.html").render(
        fit=fit,
        dataset=dataset,
        evaluation=evaluation,
        card=list(_rows(card)),
        created=card["created"],
        parameters=card["parameters"],
        samples=_samples(dataset.train),
        curves=charts.learning(fit.history),
        evidence=_evidence(fit, dataset.test),
        confusion=confusion.tolist(),
        most_confused=int((confusion - np.diag(confusion.diagonal())).max()),
        per_digit=per_digit,
        accuracies=charts.accuracies(per_digit.values()),
        mistakes=len(mistakes),
        worst=[_mistake(index, dataset.test, probabilities[index]) for index in mistakes[:MISTAKES].tolist()],
        reliability=reliability_bins(labels, probabilities),
    )


def _samples(examples: Examples) -> dict[int, str]:
    """The first of each digit that there is, side by side."""
    return {
        digit: digits(examples.images[examples.labels == digit][:SAMPLES])
        for digit in np.unique(examples.labels).tolist()
    }


def _evidence(fit: Fit, examples: Examples) -> list[str]:
    """A picture for each digit, all to the same scale; none for a network that is no perceptron."""
    values = evidence(fit.model, examples)
    if values is None:
        return []
    limit = float(np.quantile(np.abs(values), FULL_COLOUR)) or 1.0
    return [signed(of_digit, limit) for of_digit in values]


def _mistake(index: int, examples: Examples, probabilities: NDArray[np.float32]) -> dict[str, Any]:
    return {
        "index": index,
        "picture": digits(examples.images[index : index + 1]),
        "label": int(examples.labels[index]),
        "answer": int(probabilities.argmax()),
        "confidence": float(probabilities.max()),
    }


def _rows(figures: dict[str, Any], *above: str) -> Iterator[tuple[str, str]]:
    """Each figure of the card, and the names that lead to it."""
    for key, value in figures.items():
        names = (*above, key.replace("_", " "))
        if isinstance(value, dict):
            yield from _rows(value, *names)
        else:
            yield ", ".join(names), str(value)
