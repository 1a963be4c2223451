"""Comparison of a new model with the served version, on all pictures that judge a model of the task."""

import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from digit_core.artifact.task_card import TaskCard
from digit_core.artifact.versions import Version
from digit_training.classifier import Outputs, predict
from digit_training.data import Examples, read_hard_pictures
from digit_training.evaluation import Evaluation, are_labels, are_right
from digit_training.export import predict_saved_model
from digit_training.models import PROBABILITIES
from digit_training.pictures import LabelledPictures
from digit_training.quality_gate import FEEDBACK, HARD_PICTURES, TEST

Sets = dict[str, LabelledPictures]
"""Pictures that judge models of one task, by name. A refused digit is wrong in all but the test set."""

Answers = dict[str, dict[str, bool]]
"""True for each right answer, by set and picture; without those that the version's preparation refuses."""


@dataclass(frozen=True)
class Comparison:
    """Right answers [n] of a new model, and of the served version, if there is one, on the same pictures."""

    right: NDArray[np.bool_]
    served: NDArray[np.bool_] | None

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
    """Comparisons of a new model with the served version, by set, that of the test set first."""

    served: str | None
    """Path of the served version; None if there is none that can be compared."""
    of: dict[str, Comparison]

    def describe(self) -> dict[str, Any]:
        """Return the accuracies as JSON values for the model card."""
        return {"served": self.served} | {
            name: {
                "pictures": len(comparison),
                "accuracy": comparison.accuracy,
                "served_accuracy": comparison.served_accuracy,
            }
            for name, comparison in self.of.items()
        }


def judging_sets(test: LabelledPictures, held_out: Examples | None = None) -> Sets:
    """Return the test set, the held-out feedback, if there is any, and for digits the hard pictures."""
    sets = {TEST: test}
    if held_out:
        sets[FEEDBACK] = LabelledPictures.of(held_out, test.task)
    if test.task.reads_numbers:
        sets[HARD_PICTURES] = LabelledPictures.of(read_hard_pictures(), test.task)
    return sets


def ask_served(version: Version, sets: Sets) -> Answers:
    """Return the answers of the served version, which has the same labels and kind of preparation.

    The version gets the pictures as its own card prepares them. Raise ModelError if it cannot be loaded,
    ArtifactError if its card is invalid, and DataError if it accepts none of the pictures.
    """
    task = version.task()
    prepared = {name: pictures.prepared_for(task) for name, pictures in sets.items()}
    outputs = predict_saved_model(version.path, *(part.examples.images for part in prepared.values()))
    return {
        name: _judge(name, pictures, answers, task)
        for (name, pictures), answers in zip(prepared.items(), outputs, strict=True)
    }


def compare(
    model: keras.Model, sets: Sets, evaluation: Evaluation, served: tuple[Version, Answers] | None
) -> Comparisons:
    """Return the comparisons on all sets; without a served version, only the model is judged.

    `evaluation` is that of the model on the test set.
    """
    comparisons = {}
    for name, pictures in sets.items():
        if name == TEST:
            outputs = {PROBABILITIES: evaluation.probabilities}
        else:
            outputs = predict(model, pictures.examples.images, pictures.task)
        answers = _judge(name, pictures, outputs, pictures.task)
        comparisons[name] = _pair(answers, served[1][name] if served else None)
    return Comparisons(str(served[0].path) if served else None, comparisons)


def _judge(name: str, pictures: LabelledPictures, outputs: Outputs, task: TaskCard) -> dict[str, bool]:
    labels = pictures.examples.labels
    right = are_labels(outputs[PROBABILITIES], labels, task) if name == TEST else are_right(outputs, labels)
    return dict(zip(pictures.names, right.tolist(), strict=True))


def _pair(answers: dict[str, bool], served: dict[str, bool] | None) -> Comparison:
    """Pair the answers by the names of the pictures.

    A picture that the preparation of one version alone refuses is a wrong answer of that version.
    """
    names = [*answers, *((served or {}).keys() - answers.keys())]
    new, old = (np.array([right.get(name, False) for name in names]) for right in (answers, served or {}))
    return Comparison(new, None if served is None else old)


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
