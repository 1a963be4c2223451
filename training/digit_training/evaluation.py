"""Evaluation metrics, and calibration of probabilities and of the threshold of `is_digit`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from digit_core.artifact.task_card import DIGITS, TaskCard
from digit_training.classifier import Outputs, check_probabilities, predict
from digit_training.data import Examples, Labels
from digit_training.drawing import negatives
from digit_training.models import IS_DIGIT, PROBABILITIES, output_layers

Images = NDArray[np.uint8]
Probabilities = NDArray[np.float32]
Scores = NDArray[np.float32]

CALIBRATION_BOUNDS = np.linspace(0, 1, 16)
"""Bounds of the bins of the calibration error."""
MAX_TEMPERATURE = 5.0
"""Upper bound of the temperature; the lower bound is the inverse. Without wrong answers, the optimum is 0."""

FOLDED_THRESHOLD = 0.5
"""`is_digit` below which the model refuses an image. Training shifts the output so
that this is the quantile on the validation digits."""

NEGATIVES_PER_KIND = 100
"""Number of negatives of each kind in an evaluation."""

_CALIBRATED, _DRAWS = 5000, 100
"""Most pictures to which a temperature is fitted, and draws of a calibrated model's answers to them."""

_MIN_SCORE = 1e-6
_BISECTION_STEPS = 40
_Z_95 = 1.96
"""Quantile of the standard normal distribution for a two-sided confidence of 95%."""


@dataclass(frozen=True)
class Scored:
    """Images uint8 [n, 28, 28] and the model's `is_digit` for each, float32 [n]."""

    images: Images
    is_digit: Scores

    @property
    def refused(self) -> NDArray[np.bool_]:
        """True for each image that the model takes for no digit: [n]."""
        return self.is_digit < FOLDED_THRESHOLD

    @property
    def refused_share(self) -> float:
        """Share of refused images, 0..1."""
        return float(self.refused.mean())

    def surest_first(self, refused: bool) -> NDArray[np.intp]:
        """Return the indices of the refused, or else the accepted images, the surest answers first."""
        chosen = np.flatnonzero(self.refused == refused)
        scores = self.is_digit[chosen]
        return chosen[np.argsort(scores if refused else -scores, kind="stable")]


@dataclass(frozen=True)
class Refusals:
    """Answers of `is_digit` for the evaluated digits, and for negatives by kind."""

    digits: Scored
    negatives: dict[str, Scored]


@dataclass(frozen=True)
class MultiLabelScores:
    """Scores of a multi-label task, 0..1: macro averages, over the labels.

    Precision and recall are those at the thresholds of the card.
    """

    precision: float
    recall: float
    mean_average_precision: float


@dataclass(frozen=True)
class Calibration:
    """Calibration error, 0..1, at the temperature that suits the pictures best."""

    temperature: float
    error: float
    by_chance: float
    """Error that 19 of 20 perfectly calibrated models keep below on so many pictures."""
    is_overconfident: bool
    """True if the mean confidence at this temperature is above the accuracy."""


@dataclass(frozen=True)
class Renamed:
    """Label of which `count` of `total` pictures, more than half, get the name of another one."""

    label: int
    answer: int
    count: int
    total: int


@dataclass(frozen=True)
class Evaluation:
    """Accuracy and calibration error, 0..1, and the model's probabilities float32 [n, k].

    `refusals` is None for a model without the output `is_digit`. A multi-label task has `scores`, no
    calibration, and as its accuracy the share of pictures with exactly their labels.
    """

    accuracy: float
    calibration_error: float | None
    probabilities: Probabilities
    refusals: Refusals | None
    scores: MultiLabelScores | None = None
    calibration: Calibration | None = None
    confused: Sequence[Renamed] = ()
    """Labels that are mostly called by another one's name, which in turn is called so."""


@dataclass(frozen=True)
class Accuracy:
    """Number of correct answers among `count`, which is at least 1."""

    correct: int
    count: int

    @property
    def ratio(self) -> float:
        """Observed accuracy, 0..1."""
        return self.correct / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson score interval: bounds, 0..1, of the true accuracy with 95% confidence."""
        spread = _Z_95**2 / self.count
        center = self.ratio + spread / 2
        half = math.sqrt(spread * (self.ratio * (1 - self.ratio) + spread / 4))
        return max(0.0, (center - half) / (1 + spread)), min(1.0, (center + half) / (1 + spread))


@dataclass(frozen=True)
class ReliabilityBin:
    """Answers whose confidence is between `low` and `high`, with their mean confidence and accuracy."""

    low: float
    high: float
    confidence: float
    accuracy: Accuracy


def evaluate(model: keras.Model, examples: Examples, task: TaskCard) -> Evaluation:
    """Return the model's accuracy, calibration error and probabilities on the examples, and its refusals.

    Raise ModelError if its outputs are not probabilities.
    """
    outputs = predict(model, examples.images, task)
    probabilities = outputs[PROBABILITIES]
    check_probabilities(probabilities, task)
    correct = are_labels(probabilities, examples.labels, task)
    if task.is_multi_label:
        scores = score_multi_label(probabilities, examples.labels, task)
        return Evaluation(float(correct.mean()), None, probabilities, None, scores)
    refusals = None
    if IS_DIGIT in outputs:
        refusals = Refusals(Scored(examples.images, outputs[IS_DIGIT]), _score_negatives(model, examples))
    error = calibration_error(reliability_bins(probabilities.max(axis=1), correct))
    calibration = calibrate(probabilities, examples.labels)
    renamed = find_renamed(examples.labels, probabilities.argmax(axis=1))
    return Evaluation(
        float(correct.mean()), error, probabilities, refusals, calibration=calibration, confused=renamed
    )


def are_labels(probabilities: Probabilities, labels: Labels, task: TaskCard) -> NDArray[np.bool_]:
    """Return True for each example whose answer is its label, or its exact set of labels: [n]."""
    if task.is_multi_label:
        return np.asarray(((probabilities >= task.threshold) == labels).all(axis=1), bool)
    return np.asarray(probabilities.argmax(axis=1) == labels, bool)


def score_multi_label(probabilities: Probabilities, labels: Labels, task: TaskCard) -> MultiLabelScores:
    """Return the scores of probabilities [n, k] for labels 0 or 1, [n, k], each of which a picture has."""
    named = probabilities >= task.threshold
    hits = (named & (labels == 1)).sum(axis=0)
    order = np.argsort(-probabilities, axis=0, kind="stable")
    ranked = np.take_along_axis(labels, order, axis=0)
    precision_at = ranked.cumsum(axis=0) / np.arange(1, len(labels) + 1)[:, np.newaxis]
    average_precision = (precision_at * ranked).sum(axis=0) / ranked.sum(axis=0)
    return MultiLabelScores(
        precision=float((hits / np.maximum(named.sum(axis=0), 1)).mean()),
        recall=float((hits / labels.sum(axis=0)).mean()),
        mean_average_precision=float(average_precision.mean()),
    )


def are_right(outputs: Outputs, labels: Labels) -> NDArray[np.bool_]:
    """Return for each example of classes and negatives whether the service would answer correctly: [n].

    A refusal is right for a negative, whose label is the number of classes, and wrong for a class. A model
    without `is_digit` never refuses.
    """
    is_negative = labels == outputs[PROBABILITIES].shape[1]
    refused = outputs[IS_DIGIT] < FOLDED_THRESHOLD if IS_DIGIT in outputs else np.zeros(len(labels), bool)
    is_label = outputs[PROBABILITIES].argmax(axis=1) == labels
    return np.where(is_negative, refused, is_label & ~refused)


def calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Return the expected calibration error of the top label, 0..1.

    The error is the mean gap between confidence and accuracy over the bins, weighted by the examples in each
    (Guo et al., 2017).
    """
    gaps = [part.accuracy.count * abs(part.confidence - part.accuracy.ratio) for part in bins]
    return sum(gaps) / sum(part.accuracy.count for part in bins)


def calibrate(probabilities: Probabilities, labels: Labels) -> Calibration:
    """Return the calibration of up to _CALIBRATED probabilities [n, k] at their best temperature."""
    rows = slice(None, None, -(-len(labels) // _CALIBRATED))
    temperature = fit_temperature(probabilities[rows], labels[rows])
    scaled = np.maximum(probabilities[rows].astype(np.float64), 1e-30) ** (1 / temperature)
    confidence = scaled.max(axis=1) / scaled.sum(axis=1)
    correct = probabilities[rows].argmax(axis=1) == labels[rows]
    rng = np.random.default_rng(0)
    drawn = [
        calibration_error(reliability_bins(confidence, rng.random(len(confidence)) < confidence))
        for _ in range(_DRAWS)
    ]
    return Calibration(
        temperature,
        calibration_error(reliability_bins(confidence, correct)),
        float(np.quantile(drawn, 0.95)),
        bool(confidence.mean() > correct.mean()),
    )


def find_renamed(labels: Labels, answers: NDArray[np.intp]) -> list[Renamed]:
    """Return the labels, each mostly called by another's name, that exchange their names in a circle.

    `labels` and `answers` are indices [n]. A single picture of a label tells nothing.
    """
    mostly: dict[int, Renamed] = {}
    for label in np.unique(labels[labels != answers]).tolist():
        called = np.bincount(answers[labels == label])
        answer, total = int(called.argmax()), int(called.sum())
        if answer != label and total > 1 and 2 * called[answer] > total:
            mostly[label] = Renamed(label, answer, int(called[answer]), total)
    # A circle is what remains without labels that no other one of them is called by.
    while outside := mostly.keys() - {renamed.answer for renamed in mostly.values()}:
        for label in outside:
            del mostly[label]
    return [*mostly.values()]


def confusion_matrix(labels: Labels, probabilities: Probabilities) -> NDArray[np.intp]:
    """Return the number of examples of each label (row) with each answer (column): [k, k]."""
    count = probabilities.shape[1]
    pairs = count * labels.astype(np.intp) + probabilities.argmax(axis=1)
    return np.bincount(pairs, minlength=count**2).reshape(count, count)


def most_confused(confusion: NDArray[np.intp], limit: int) -> list[tuple[int, int, int]]:
    """Return the `limit` most frequent (label, wrong answer, number of examples), the most frequent first."""
    wrong = confusion - np.diag(confusion.diagonal())
    rows, columns = np.unravel_index(np.argsort(-wrong, axis=None, kind="stable")[:limit], wrong.shape)
    pairs = zip(rows.tolist(), columns.tolist(), wrong[rows, columns].tolist(), strict=True)
    return [pair for pair in pairs if pair[2]]


def accuracy_per_label(confusion: NDArray[np.intp]) -> dict[int, Accuracy]:
    """Return the accuracy on each label that has examples, by the label's index."""
    return {
        label: Accuracy(int(answers[label]), int(answers.sum()))
        for label, answers in enumerate(confusion)
        if answers.any()
    }


def reliability_bins(
    confidence: NDArray[np.floating],
    correct: NDArray[np.bool_],
    bounds: NDArray[np.float64] = CALIBRATION_BOUNDS,
) -> list[ReliabilityBin]:
    """Return the bins of the confidences [n], rising, without the empty ones."""
    indices = np.digitize(confidence, bounds[1:-1])
    return [
        ReliabilityBin(
            low=float(bounds[index]),
            high=float(bounds[index + 1]),
            confidence=float(confidence[indices == index].mean(dtype=float)),
            accuracy=Accuracy(int(correct[indices == index].sum()), int((indices == index).sum())),
        )
        for index in np.unique(indices).tolist()
    ]


def worst_mistakes(labels: Labels, probabilities: Probabilities) -> NDArray[np.intp]:
    """Return the indices of the wrong answers, the most confident first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]


def fit_temperature(probabilities: Probabilities, labels: Labels) -> float:
    """Return the temperature, 1/5..5, that minimises the negative log-likelihood of the labels [n].

    Temperature scaling divides the logits by the temperature (Guo et al., 2017). The negative log-likelihood
    is convex in the inverse temperature, so that bisection on the sign of the slope finds the minimum.
    """
    # Softmax ignores a common offset of the logits, so that the logarithms of its outputs serve as logits.
    logits = np.log(np.maximum(probabilities.astype(np.float64), 1e-30))
    shifted, right = logits - logits.max(axis=1, keepdims=True), logits[np.arange(len(labels)), labels]
    # Bounds of the logarithm of the inverse temperature.
    low, high = -math.log(MAX_TEMPERATURE), math.log(MAX_TEMPERATURE)
    for _ in range(_BISECTION_STEPS):
        middle = (low + high) / 2
        exponentials = np.exp(math.exp(middle) * shifted)
        expected = (exponentials * logits).sum(axis=1) / exponentials.sum(axis=1)
        # Derivative of the mean negative log-likelihood with respect to the inverse temperature.
        if (expected - right).mean() > 0:
            high = middle
        else:
            low = middle
    return math.exp(-(low + high) / 2)


def fold_temperature(model: keras.Model, temperature: float) -> None:
    """Divide the weights of the layer of the probabilities, Dense with a softmax, by the temperature."""
    layer = output_layers(model)[PROBABILITIES]
    layer.set_weights([weights / np.float32(temperature) for weights in layer.get_weights()])


def fit_threshold(is_digit: Scores, max_refused: float) -> float:
    """Return the highest threshold that refuses at most a share `max_refused` of the scores of digits.

    `is_digit` is [n], 0..1, n at least 1; the result is in 0..1, both excluded.
    """
    rank = int(max_refused * len(is_digit))
    return float(np.clip(np.sort(is_digit)[rank], _MIN_SCORE, 1 - _MIN_SCORE))


def fold_threshold(model: keras.Model, threshold: float) -> None:
    """Shift the bias of `is_digit`, Dense with a sigmoid, so that FOLDED_THRESHOLD replaces `threshold`."""
    layer = output_layers(model)[IS_DIGIT]
    weights, bias = layer.get_weights()
    # The logit of FOLDED_THRESHOLD is 0.
    layer.set_weights([weights, bias - np.float32(math.log(threshold / (1 - threshold)))])


def _score_negatives(model: keras.Model, digits: Examples) -> dict[str, Scored]:
    """Score negatives of each kind, the same ones for the same digits."""
    rng = np.random.default_rng(0)
    drawn = [negatives.draw_kind(name, NEGATIVES_PER_KIND, rng, digits) for name in negatives.KINDS]
    # A single prediction for all kinds, since each call of Model.predict takes time to begin.
    scores = np.split(predict(model, sum(drawn[1:], drawn[0]).images, DIGITS)[IS_DIGIT], len(drawn))
    return {
        name: Scored(examples.images, is_digit)
        for name, examples, is_digit in zip(negatives.KINDS, drawn, scores, strict=True)
    }
