"""HTML report of a fit: a self-contained page with images as `data:` URIs and charts as SVG."""

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
    Refusals,
    Scored,
    accuracy_per_digit,
    confusion_matrix,
    reliability_bins,
    worst_mistakes,
)
from digit_training.fit import MAX_REFUSED, FitResult
from digit_training.negatives import KINDS
from digit_training.report import charts
from digit_training.report.saliency import saliency_maps

SAMPLES_PER_DIGIT = 10
MAX_MISTAKES = 24
MAX_NEGATIVES = 10
"""Most refused, and most accepted, negatives shown of a kind."""

SATURATION_QUANTILE = 0.995
"""Quantile of the saliency's magnitude at which colours reach full opacity."""

POSITIVE_BGR = (212, 122, 40)
NEGATIVE_BGR = (52, 62, 220)
"""Blue and red that contrast with white and with black, and that colour-blind people can tell apart."""


def render_page(fit: FitResult, dataset: Dataset, evaluation: Evaluation, card: dict[str, Any]) -> str:
    """Return the report as HTML without external resources; `card` is the model card.

    Untrusted values, such as the path of the data, are escaped.
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
        card=list(_flatten(card)),
        created=card["created"],
        parameters=card["parameters"],
        samples=_samples(dataset.train),
        curves=charts.learning_curves(fit.history),
        saliency=_saliency(fit, dataset.test),
        confusion=confusion.tolist(),
        max_confused=int((confusion - np.diag(confusion.diagonal())).max()),
        per_digit=per_digit,
        accuracy_axis=charts.accuracy_axis(per_digit.values()),
        mistake_count=len(mistakes),
        worst_mistakes=[
            _mistake(index, dataset.test, probabilities[index]) for index in mistakes[:MAX_MISTAKES].tolist()
        ],
        reliability=reliability_bins(labels, probabilities),
        max_refused=MAX_REFUSED,
        refusals=_refusals(evaluation.refusals, dataset.test) if evaluation.refusals else None,
    )


def digits_data_uri(images: NDArray[np.uint8]) -> str:
    """Return images uint8 [n, 28, 28], side by side, as a PNG data URI."""
    return _png_data_uri(np.hstack(list(images)))


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


def _samples(examples: Examples) -> dict[int, str]:
    """Return a data URI of the first examples of each digit that occurs."""
    return {
        digit: digits_data_uri(examples.images[examples.labels == digit][:SAMPLES_PER_DIGIT])
        for digit in np.unique(examples.labels).tolist()
    }


def _saliency(fit: FitResult, examples: Examples) -> list[str]:
    """Return a data URI for each digit, all on one colour scale; [] unless the network is the perceptron."""
    maps = saliency_maps(fit.model, examples)
    if maps is None:
        return []
    limit = float(np.quantile(np.abs(maps), SATURATION_QUANTILE)) or 1.0
    return [saliency_data_uri(values, limit) for values in maps]


def _mistake(index: int, examples: Examples, probabilities: NDArray[np.float32]) -> dict[str, Any]:
    return {
        "index": index,
        "image": digits_data_uri(examples.images[index : index + 1]),
        "label": int(examples.labels[index]),
        "answer": int(probabilities.argmax()),
        "confidence": float(probabilities.max()),
    }


def _refusals(refusals: Refusals, examples: Examples) -> dict[str, Any]:
    """Return the refused digits, surest first, and the refused and accepted negatives of each kind."""
    digits = refusals.digits
    refused = digits.surest_first(refused=True)
    return {
        "count": len(refused),
        "share": digits.refused_share,
        "digits": [_refused_digit(index, examples, digits) for index in refused[:MAX_MISTAKES].tolist()],
        "kinds": [_kind(name, scored) for name, scored in refusals.negatives.items()],
    }


def _refused_digit(index: int, examples: Examples, scored: Scored) -> dict[str, Any]:
    return {
        "index": index,
        "image": digits_data_uri(examples.images[index : index + 1]),
        "label": int(examples.labels[index]),
        "is_digit": float(scored.is_digit[index]),
    }


def _kind(name: str, scored: Scored) -> dict[str, Any]:
    images = {
        answer: scored.images[scored.surest_first(refused)[:MAX_NEGATIVES]]
        for answer, refused in (("refused", True), ("accepted", False))
    }
    return {
        "name": name,
        "held_out": KINDS[name].is_held_out,
        "share": scored.refused_share,
        **{answer: digits_data_uri(shown) if len(shown) else None for answer, shown in images.items()},
        "widths": {answer: len(shown) for answer, shown in images.items()},
    }


def _flatten(card: dict[str, Any], *parents: str) -> Iterator[tuple[str, str]]:
    """Yield each value of the card with its dotted key, such as "fit.seed"."""
    for key, value in card.items():
        if isinstance(value, dict):
            yield from _flatten(value, *parents, key)
        else:
            yield ".".join((*parents, key)), str(value)
