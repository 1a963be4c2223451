"""Comparison of a new model with the served version, on all pictures that judge a model of the task."""

import keras
import numpy as np

from digit_core.artifact.task_card import TaskCard
from digit_core.artifact.versions import Version
from digit_training.classifier import Outputs, predict
from digit_training.data import read_hard_pictures
from digit_training.evaluation import Evaluation, are_labels, are_right
from digit_training.export import predict_saved_model
from digit_training.models import PROBABILITIES
from digit_training.pictures import LabelledPictures
from digit_training.quality_gate import FEEDBACK, HARD_PICTURES, TEST, Comparison, Comparisons

Sets = dict[str, LabelledPictures]
"""Pictures that judge models of one task, by name. A refusal is wrong, except in the test set."""

Answered = dict[str, tuple[bool, int | None, float]]
"""True for a right answer, the index of the label, None of a multi-label task, and the confidence.

By picture, without those that the version's preparation refuses."""

Answers = dict[str, Answered]
"""Answers by set."""


def judging_sets(test: LabelledPictures, held_out: LabelledPictures | None = None) -> Sets:
    """Return the test set, the held-out feedback, if there is any, and for digits the hard pictures."""
    sets = {TEST: test}
    if held_out:
        sets[FEEDBACK] = held_out
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


def _judge(name: str, pictures: LabelledPictures, outputs: Outputs, task: TaskCard) -> Answered:
    labels = pictures.examples.labels
    right = are_labels(outputs[PROBABILITIES], labels, task) if name == TEST else are_right(outputs, labels)
    indices = [None] * len(right) if task.is_multi_label else labels.tolist()
    confidence = outputs[PROBABILITIES].max(axis=1).tolist()
    return dict(zip(pictures.names, zip(right.tolist(), indices, confidence, strict=True), strict=True))


def _pair(answers: Answered, served: Answered | None) -> Comparison:
    """Pair the answers by the names of the pictures.

    A picture that the preparation of one version alone refuses is a wrong answer of that version.
    """
    labels = {name: label for name, (_, label, _) in {**answers, **(served or {})}.items()}
    refused = (False, None, 0.0)
    paired = [(answers.get(name, refused), (served or {}).get(name, refused)) for name in labels]
    new, old = (np.array([pair[side][0] for pair in paired], bool) for side in (0, 1))
    if None in labels.values():
        return Comparison(new, None if served is None else old)
    confidence = np.array([[pair[side][2] for pair in paired] for side in (0, 1)])
    return Comparison(new, None if served is None else old, np.array([*labels.values()], np.intp), confidence)
