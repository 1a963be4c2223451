"""Comparison of a new model with the served version, on all pictures that judge a model of the task."""

import math
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from digit_core.artifact.task_card import TaskCard
from digit_core.artifact.versions import Version
from digit_training.classifier import predict
from digit_training.data import Examples, read_hard_pictures
from digit_training.evaluation import Evaluation, are_labels, are_right
from digit_training.export import predict_saved_model
from digit_training.models import PROBABILITIES
from digit_training.pictures import LabelledPictures

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

    def describe(self) -> dict[str, Any]:
        """Return the accuracies as JSON values for the model card."""
        accuracies = {
            comparison.pictures: {
                "pictures": len(comparison),
                "accuracy": comparison.accuracy,
                "served_accuracy": comparison.served_accuracy,
            }
            for comparison in self.all
        }
        return {"served": self.served, **accuracies}


@dataclass(frozen=True)
class EvaluationSets:
    """Labelled pictures that judge models of one task."""

    test: LabelledPictures
    few: dict[str, Examples] = field(default_factory=dict)
    """Sets of which a refused digit is a wrong answer, by the name of their field in `Comparisons`."""

    @property
    def task(self) -> TaskCard:
        """Task of the models."""
        return self.test.task

    @classmethod
    def of(cls, test: LabelledPictures, held_out: Examples | None = None) -> "EvaluationSets":
        """Return the test set, the held-out feedback and, for digits, the hard pictures."""
        few = {"feedback": held_out} if held_out is not None and len(held_out) else {}
        if test.task.reads_numbers:
            few["hard_pictures"] = read_hard_pictures()
        return cls(test, few)


@dataclass(frozen=True)
class ServedAnswers:
    """Right answers of the served version on evaluation sets."""

    version: Version
    test: dict[str, bool]
    """By the names of the pictures that the version's preparation accepts."""
    few: dict[str, Answers]


def ask_served(version: Version, sets: EvaluationSets) -> ServedAnswers:
    """Return the right answers of the served version, which has the same labels and kind of preparation.

    The version gets the test pictures as its own card prepares them. Raise ModelError if it cannot be loaded,
    ArtifactError if its card is invalid, and DataError if it accepts none of the pictures.
    """
    task = version.task()
    test = sets.test.prepared_for(task)
    images = (test.examples.images, *(examples.images for examples in sets.few.values()))
    test_outputs, *few_outputs = predict_saved_model(version.path, *images)
    right = are_labels(test_outputs[PROBABILITIES], test.examples.labels, task)
    return ServedAnswers(
        version,
        dict(zip(test.names, right.tolist(), strict=True)),
        {
            name: are_right(outputs, examples.labels)
            for (name, examples), outputs in zip(sets.few.items(), few_outputs, strict=True)
        },
    )


def compare(
    model: keras.Model, sets: EvaluationSets, evaluation: Evaluation, served: ServedAnswers | None
) -> Comparisons:
    """Return the comparisons on all sets; without a served version, only the model is judged.

    `evaluation` is that of the model on the test set.
    """
    right = are_labels(evaluation.probabilities, sets.test.examples.labels, sets.task)
    answers = dict(zip(sets.test.names, right.tolist(), strict=True))
    few = {
        name: Comparison(
            _NAMES[name],
            are_right(predict(model, examples.images, sets.task), examples.labels),
            served.few[name] if served else None,
        )
        for name, examples in sets.few.items()
    }
    return Comparisons(
        str(served.version.path) if served else None,
        _pair("the test set", answers, served.test if served else None),
        **few,
    )


def _pair(pictures: str, answers: dict[str, bool], served: dict[str, bool] | None) -> Comparison:
    """Pair the answers by the names of the pictures.

    A picture that the preparation of one version alone refuses is a wrong answer of that version.
    """
    names = [*answers, *((served or {}).keys() - answers.keys())]
    new, old = (np.array([right.get(name, False) for name in names]) for right in (answers, served or {}))
    return Comparison(pictures, new, None if served is None else old)


def _binomial_tail(least: int, count: int) -> float:
    """Probability of at least `least` heads of `count` coins.

    Of the pictures that one of two equally good models alone answers correctly, each is as likely to be lost
    as to be gained.
    """
    ways, total = math.comb(count, least), 0
    for heads in range(least, count + 1):
        total += ways
        # Binomial coefficient of one more head; math.comb of each would take seconds for thousands of coins.
        ways = ways * (count - heads) // (heads + 1)
    return total / (1 << count)
