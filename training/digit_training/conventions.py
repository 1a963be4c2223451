"""Conventions of a network, its range and order of channels, tried on labelled pictures or on probes.

The convention that a card claims is contradicted if another one answers better, beyond chance.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np
from numpy.typing import NDArray

from digit_core.artifact.task_card import CardInput, TaskCard
from digit_training.classifier import Convention, batch_size, network, probes, suggested_ranges, to_pixels
from digit_training.data import Examples, Labels
from digit_training.models import PROBABILITIES, has_is_digit
from digit_training.quality_gate import MAX_CHANCE, Comparison

Range = tuple[float, float]
Logits = NDArray[np.float64]

_RANGES: tuple[Range, ...] = ((0.0, 255.0), (0.0, 1.0), (-1.0, 1.0), (-0.5, 0.5))
"""Usual ranges of pixels."""

_IMAGENET: tuple[tuple[Range, Convention], ...] = (
    ((0.0, 255.0), Convention(mean=(103.939, 116.779, 123.68), is_bgr=True)),
    ((0.0, 1.0), Convention(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))),
)
"""Conventions of Caffe and of PyTorch for coloured pictures, as in preprocess_input of keras.applications."""

_CHANGES = {
    "rows and columns exchanged": "begin the network with Permute((2, 1, 3))",
    "light and dark exchanged": "begin the network with Rescaling(-1, offset=LOW + HIGH)",
}
"""Changes of pictures that no card states, and how the network makes them itself."""

_MAX_PICTURES, _MAX_VALUES = 256, 8_000_000
"""Most pictures that are tried, and most values of their pixels."""

_MIN_GAIN, _MIN_LOSS_GAIN = 0.05, 0.02
"""Least gain in accuracy and in log loss of a convention that contradicts the claimed one."""

_MIN_DEVIATIONS = 3.0
"""Least mean gain in log loss, in standard errors: 1 in 700 by chance, for each of twenty conventions."""

_MIN_PROBABILITY, _MIN_LABEL_PROBABILITY = 1e-30, 1e-4
"""Least probability of which a logit is taken, and least one of a label in a loss."""

_MAX_LOG_TEMPERATURE, _BISECTION_STEPS = 10.0, 30
"""Bounds of the logarithm of the temperature that matches the confidence, and the steps to find it."""

_MAX_FLAT, _MIN_SPREAD = 0.05, 0.2
"""Largest difference between answers to black, white and noise in too small a range, and least in another."""


@dataclass(frozen=True)
class Trial:
    """Answers of a network under one convention to n pictures."""

    range: Range
    convention: Convention
    change: str
    """Key of _CHANGES, or ""."""
    right: NDArray[np.bool_]
    losses: NDArray[np.float64]
    """Log loss of each picture, [n]."""
    matched: NDArray[np.float64]
    """The same at the temperature that gives every trial the same mean confidence."""
    confidence: float
    """Mean confidence, 0..1."""

    @property
    def figures(self) -> str:
        """Return accuracy and log loss in words."""
        return f"{self.right.sum()} of {len(self.right)} pictures (log loss {self.losses.mean():.2f})"

    def beats(self, claimed: "Trial", count: int) -> bool:
        """True if the claimed convention answers worse, beyond chance among `count` conventions.

        More confidence alone is no better answer: it lowers the log loss of every network whose answers are
        right, and a temperature gives it to any convention. Likelihood ratio: few answers that are wrong and
        sure decide the losses, too few for the z-test; if the claimed probabilities were true, those of
        another convention would be r times as likely in at most one of r tries (Markov's inequality).
        """
        compared = Comparison(self.right, claimed.right)
        if compared.gain > _MIN_GAIN and compared.chance_of_gain < MAX_CHANCE / count:
            return True
        if compared.chance_of_loss < MAX_CHANCE:
            return False
        is_as_good = self.matched.mean() <= claimed.matched.mean() + 1e-4
        is_less_sure = self.confidence < claimed.confidence and _are_less(self.losses, claimed.losses)
        log_ratios = (claimed.matched - self.matched).sum(), (claimed.losses - self.losses).sum()
        is_likelier = min(log_ratios) > math.log(count / MAX_CHANCE)
        is_better = is_likelier or _are_less(self.matched, claimed.matched)
        return bool(is_better or (is_as_good and is_less_sure))

    def advice(self, claimed: "Trial") -> str:
        """Return how to say this convention, where it differs from the claimed one."""
        (low, high), own, other = self.range, self.convention, claimed.convention
        color = "bgr" if own.is_bgr else "rgb"
        said = [
            (self.range != claimed.range, f"--range={low:g},{high:g}"),
            (own.mean != other.mean, f"mean = {[*own.mean]} under [input] of the card"),
            (own.std != other.std, f"std = {[*own.std]} under [input] of the card"),
            (own.is_bgr != other.is_bgr, f'color = "{color}" under [prepare] of the card'),
            (bool(self.change), f"{self.change}: {_CHANGES.get(self.change)}"),
        ]
        return ", ".join(words for differs, words in said if differs)


def try_all(
    model: keras.Model, task: TaskCard, claimed: Convention, examples: Examples, minimum: float
) -> list[Trial]:
    """Return the trials of a network, that of the claimed convention first.

    Pictures are turned and inverted, too, if fewer than `minimum`, 0..1, are answered rightly.
    """
    step = max(1, -(-len(examples) // _MAX_PICTURES), examples.images.size // _MAX_VALUES)
    chosen = examples[slice(None, None, step)]
    images, labels = chosen.images, chosen.labels
    raw = _raw(model, task, claimed)
    tried = [(*each, "", _ask(raw, images, task, each)) for each in _candidates(model, task, claimed)]
    if max((found.argmax(axis=1) == labels).mean() for *_, found in tried) < minimum:
        is_square = task.shape[0] == task.shape[1]
        others = [images.swapaxes(1, 2) if is_square else images, 255 - images]
        tried += [
            (*each, change, _ask(raw, changed, task, each))
            for change, changed in zip(_CHANGES, others, strict=True)
            for each in [(pixels, convention) for pixels, convention, *_ in tried]
        ]
    best = max(float((found.argmax(axis=1) == labels).mean()) for *_, found in tried)
    return [_judge(*each, (labels, min(max(best, 0.5), 0.9))) for each in tried]


def contradiction(trials: Sequence[Trial], minimum: float) -> str:
    """Return a sentence if another convention answers better than the claimed one, the first; "" if not.

    `minimum` is the accuracy, 0..1, that it has to reach.
    """
    claimed, *others = trials
    better = [
        trial for trial in others if trial.right.mean() >= minimum and trial.beats(claimed, len(others))
    ]
    if not better:
        return ""
    best = min(better, key=lambda trial: (round(float(trial.matched.mean()), 3), trial.losses.mean()))
    return (
        f"as the card has it, the model answers {claimed.figures} rightly, and with {best.advice(claimed)} "
        f"{best.figures}: say so"
    )


def contradicted_range(model: keras.Model, task: TaskCard, claimed: Convention) -> Range | None:
    """Return a range in which black, white and noise have different answers if they have equal ones in the
    card's; None if they differ.

    This decides without pictures that a network scales pixels itself.
    """
    raw, images = _raw(model, task, claimed), probes(task)

    def spread(pixels: Range) -> float:
        answers = _softmax(_ask(raw, images, task, (pixels, claimed)))
        return float(np.ptp(answers, axis=0).max())

    if spread(task.range) > _MAX_FLAT:
        return None
    return next((pixels for pixels in _ranges(model, task) if spread(pixels) > _MIN_SPREAD), None)


def _ranges(model: keras.Model, task: TaskCard) -> list[Range]:
    """Return the card's range, those that the model's first layers suggest, and the usual ones."""
    if keras.backend.is_int_dtype(model.inputs[0].dtype):
        return [task.range]
    return list(dict.fromkeys([task.range, *suggested_ranges(model), *_RANGES]))


def _candidates(
    model: keras.Model, task: TaskCard, claimed: Convention
) -> Iterator[tuple[Range, Convention]]:
    """Yield the conventions, the claimed one first."""
    plain = replace(claimed, mean=(), std=())
    usual = [(pixels, plain) for pixels in _ranges(model, task)]
    if task.prepare.color == "rgb" and len(usual) > 1:
        imagenet = [(pixels, replace(each, output=claimed.output)) for pixels, each in _IMAGENET]
        usual += [*imagenet, *((pixels, replace(plain, is_bgr=not plain.is_bgr)) for pixels, plain in usual)]
    yield task.range, claimed
    yield from ((pixels, each) for pixels, each in usual if (pixels, each) != (task.range, claimed))


def _raw(model: keras.Model, task: TaskCard, claimed: Convention) -> keras.Model:
    """Return a model of the network's answers to its own pixels."""
    raw = network(model, task, replace(claimed, mean=(), std=(), is_bgr=False))
    return keras.Model(raw.input, raw.output[PROBABILITIES]) if has_is_digit(raw) else raw


def _ask(
    raw: keras.Model, images: NDArray[np.uint8], task: TaskCard, tried: tuple[Range, Convention]
) -> Logits:
    """Return the logits of the labels, [n, k], for images uint8 [n, *shape] under a convention."""
    pixels, convention = tried
    values = to_pixels(images, replace(task, input=CardInput(task.shape, pixels)))
    values = values[..., ::-1] if convention.is_bgr else values
    mean, std = np.array(convention.mean or (0,), np.float32), np.array(convention.std or (1,), np.float32)
    values = (values - mean) / std
    answers = raw.predict(values, batch_size=batch_size(images), verbose=0)
    answers = np.nan_to_num(np.asarray(answers, np.float64))
    if convention.output == "logits":
        return answers if answers.shape[1] > 1 else np.pad(answers, ((0, 0), (1, 0)))
    answers = (
        answers if convention.output == "probabilities" else np.concatenate([1 - answers, answers], axis=1)
    )
    return np.asarray(np.log(np.clip(answers, _MIN_PROBABILITY, 1)))


def _judge(
    pixels: Range, convention: Convention, change: str, logits: Logits, judged: tuple[Labels, float]
) -> Trial:
    """Return the trial of logits [n, k]; `judged` are the labels [n] and the mean confidence to match."""
    labels, confidence = judged
    probabilities = _softmax(logits)
    low, high = -_MAX_LOG_TEMPERATURE, _MAX_LOG_TEMPERATURE
    for _ in range(_BISECTION_STEPS):
        middle = (low + high) / 2
        is_too_sure = _softmax(logits / np.exp(middle)).max(axis=1).mean() > confidence
        low, high = (middle, high) if is_too_sure else (low, middle)
    return Trial(
        pixels,
        convention,
        change,
        logits.argmax(axis=1) == labels,
        _losses(probabilities, labels),
        _losses(_softmax(logits / np.exp(low)), labels),
        float(probabilities.max(axis=1).mean()),
    )


def _softmax(logits: Logits) -> Logits:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def _losses(probabilities: Logits, labels: Labels) -> NDArray[np.float64]:
    """Return the log loss of each picture, bounded, so that no picture decides alone."""
    return -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], _MIN_LABEL_PROBABILITY))


def _are_less(losses: NDArray[np.float64], others: NDArray[np.float64]) -> bool:
    """True if losses are less than others of the same pictures, beyond chance, by the paired z-test."""
    gains = others - losses
    error = gains.std() / np.sqrt(len(gains))
    return bool(gains.mean() > max(_MIN_LOSS_GAIN, _MIN_DEVIATIONS * error))
