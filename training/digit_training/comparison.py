"""Comparison of a new model with the served version, on all pictures that judge a model of the task."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from digit_client import TaskCard
from digit_training.artifact import predict_saved_model, read_task
from digit_training.classifier import Outputs, predict
from digit_training.data import Examples, Labels, read_hard_pictures
from digit_training.errors import ModelError
from digit_training.evaluation import Evaluation, are_right
from digit_training.models import PROBABILITIES

Answers = NDArray[np.bool_]
"""True for each right answer: [n]."""

_NAMES = {"feedback": "the held-out feedback", "hard_pictures": "the hard pictures"}


@dataclass(frozen=True)
class Comparison:
    """Right answers of a new model, and of the served version, on the same pictures."""

    pictures: str
    """Name of the pictures for messages, such as "the test set"."""
    right: Answers
    served: Answers | None
    """None if there is no served version that can be compared."""
    are_few: bool = False
    """True if a difference may be chance."""

    def __len__(self) -> int:
        return len(self.right)

    @property
    def accuracy(self) -> float:
        """Accuracy of the new model, 0..1."""
        return float(self.right.mean())

    @property
    def served_accuracy(self) -> float | None:
        """Accuracy of the served version, 0..1."""
        return None if self.served is None else float(self.served.mean())

    @property
    def gained(self) -> int:
        """Number of pictures that the new model alone answers correctly."""
        return 0 if self.served is None else int((self.right & ~self.served).sum())

    @property
    def lost(self) -> int:
        """Number of pictures that the served version alone answers correctly."""
        return 0 if self.served is None else int((self.served & ~self.right).sum())

    @property
    def gain(self) -> float:
        """Accuracy of the new model minus that of the served version, -1..1."""
        return (self.gained - self.lost) / len(self)

    @property
    def chance_of_loss(self) -> float:
        """Probability that two equally good models differ by this loss or more (McNemar, 1947)."""
        return _binomial_tail(self.lost, self.gained + self.lost)

    @property
    def chance_of_gain(self) -> float:
        """Probability that two equally good models differ by this gain or more (McNemar, 1947)."""
        return _binomial_tail(self.gained, self.gained + self.lost)


@dataclass(frozen=True)
class Comparisons:
    """Comparisons of a new model with the served version, on all pictures that judge it."""

    served: str | None
    """Path of the served version; None if there is none that can be compared."""
    test: Comparison
    feedback: Comparison | None = None
    """Comparison on the held-out feedback."""
    hard_pictures: Comparison | None = None

    @property
    def all(self) -> list[Comparison]:
        """The comparisons that there are, the test set first."""
        return [part for part in (self.test, self.feedback, self.hard_pictures) if part]


def compare(
    model: keras.Model,
    task: TaskCard,
    test: Examples,
    evaluation: Evaluation,
    served: Path | None,
    held_out: Examples | None = None,
) -> Comparisons:
    """Return the comparisons on the test set, the held-out feedback, and for digits the hard pictures.

    `evaluation` is that of the model on the test set. Without a `served` version, only the model is judged.
    Raise ModelError if the served version takes other pictures, has other labels, or cannot be loaded.
    """
    few = {"feedback": held_out} if held_out is not None and len(held_out) else {}
    if task.reads_numbers:
        few["hard_pictures"] = read_hard_pictures()
    images = [test.images, *(examples.images for examples in few.values())]
    served_test, *served_few = _ask_served(served, task, images) if served else [None] * len(images)

    comparisons = {
        name: Comparison(
            _NAMES[name],
            are_right(predict(model, examples.images, task), examples.labels),
            are_right(answers, examples.labels) if answers else None,
            are_few=True,
        )
        for (name, examples), answers in zip(few.items(), served_few, strict=True)
    }
    return Comparisons(
        str(served) if served else None,
        Comparison(
            "the test set",
            _are_labels(evaluation.probabilities, test.labels),
            _are_labels(served_test[PROBABILITIES], test.labels) if served_test else None,
        ),
        **comparisons,
    )


def _binomial_tail(least: int, count: int) -> float:
    """Probability of at least `least` heads of `count` coins.

    Of the pictures that one of two equally good models alone answers correctly, each is as likely to be lost
    as to be gained.
    """
    return float(sum(math.comb(count, heads) for heads in range(least, count + 1)) / 2**count)


def _are_labels(probabilities: NDArray[np.float32], labels: Labels) -> Answers:
    return np.asarray(probabilities.argmax(axis=1) == labels, bool)


def _ask_served(version: Path, task: TaskCard, images: list[NDArray[np.uint8]]) -> list[Outputs]:
    served = read_task(version)
    # The signature `images` scales to each version's own range.
    if served.labels != task.labels or not replace(served, range=task.range).prepares_as(task):
        raise ModelError(f"{version} has other labels or takes other pictures")
    return predict_saved_model(version, *images)
