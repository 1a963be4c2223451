"""Comparison of a new model with the served version, on all pictures that judge a model of the task."""

import keras
import numpy as np

from digit_core.artifact.task_card import TaskCard
from digit_core.artifact.versions import Version
from digit_training.classifier import Outputs, predict
from digit_training.data import Examples, read_hard_pictures
from digit_training.evaluation import Evaluation, are_labels, are_right
from digit_training.export import predict_saved_model
from digit_training.models import PROBABILITIES
from digit_training.pictures import LabelledPictures
from digit_training.quality_gate import FEEDBACK, HARD_PICTURES, TEST, Comparison, Comparisons

Sets = dict[str, LabelledPictures]
"""Pictures that judge models of one task, by name. A refused digit is wrong in all but the test set."""

Answers = dict[str, dict[str, bool]]
"""True for each right answer, by set and picture; without those that the version's preparation refuses."""


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
