"""Training-serving skew: pictures in another range, or prepared by Keras's loader, compared with serving."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from digit_core import images
from digit_core.artifact.task_card import CardInput, TaskCard
from digit_core.errors import ImageError
from digit_training.classifier import predict, takes_bytes
from digit_training.errors import CardError
from digit_training.evaluation import are_labels
from digit_training.models import PROBABILITIES
from digit_training.pictures import LabelledPictures
from digit_training.quality_gate import MAX_CHANCE, Comparison

MAX_PICTURES = 64
MAX_RANGE_PICTURES = 256
"""Most pictures that judge the range of the card."""
MIN_RANGE_GAIN = 0.05
"""Least gain in accuracy of another range that contradicts the card's."""

_RANGES = ((0.0, 255.0), (0.0, 1.0), (-1.0, 1.0))
"""Usual ranges of pixels."""

_KERAS: dict[str, tuple[Any, str]] = {
    "interpolation": ("bilinear", 'scales down by default without averaging (interpolation = "bilinear")'),
    "alpha": ("ignore", 'ignores transparency (alpha = "ignore")'),
    "exif": (False, "does not turn photographs as EXIF says (exif = false)"),
}
"""Entries of a card with which a picture is prepared as `image_dataset_from_directory` does by default."""


def check_range(model: keras.Model, pictures: LabelledPictures, probabilities: NDArray[np.float32]) -> None:
    """Raise CardError if the model answers more pictures correctly in another range than in the card's.

    The sign test (McNemar, 1947) judges up to MAX_RANGE_PICTURES. `probabilities` [n, k] are the model's
    answers in the card's range.
    """
    task = pictures.task
    rows = slice(None, None, -(-len(pictures) // MAX_RANGE_PICTURES))
    images, labels = pictures.examples.images[rows], pictures.examples.labels[rows]
    right = are_labels(probabilities[rows], labels, task)
    for low, high in _RANGES:
        if (low, high) == task.range:
            continue
        card = replace(task, input=CardInput(task.shape, (low, high)))
        answers = predict(model, images, card)[PROBABILITIES]
        other = Comparison(are_labels(answers, labels, task), right)
        if other.gain > MIN_RANGE_GAIN and other.chance_of_gain < MAX_CHANCE / 2:
            raise CardError(
                f"in the range {task.range[0]:g} to {task.range[1]:g} the model answers {right.sum()} of "
                f"{len(right)} pictures correctly, in {low:g} to {high:g} {other.right.sum()}: say "
                f"--range={low:g},{high:g} (range = [{low:g}, {high:g}] in the card)"
            )


def check_range_of_first_layer(model: keras.Model, task: TaskCard) -> None:
    """Raise CardError if the model scales 0..255 itself but gets another range; no picture judges it."""
    low, high = task.range
    if takes_bytes(model) and (low, high) != (0, 255):
        raise CardError(
            f"the model's first layer scales 0 to 255, but the card says {low:g} to {high:g}: leave out the "
            "range, or give --data, whose pictures decide"
        )


def describe_other_answers(
    model: keras.Model, pictures: LabelledPictures, probabilities: NDArray[np.float32]
) -> Iterator[str]:
    """Yield a sentence for each entry of a card by which pictures get another answer than in serving.

    `probabilities` [n, k] are the model's answers as in serving. Up to MAX_PICTURES of a folder for each
    label are compared. Other pictures are not, since this loader does not read them.
    """
    folder, task = pictures.path, pictures.task
    if folder is None or task.kind != "resize":
        return
    rows = [row for row, name in enumerate(pictures.names) if (folder / name).is_file()]
    if not rows:
        return
    rows = rows[:: -(-len(rows) // MAX_PICTURES)]
    contents = [(folder / pictures.names[row]).read_bytes() for row in rows]
    for entry, (value, habit) in _KERAS.items():
        card = replace(task, prepare=replace(task.prepare, **{entry: value}))
        # The file of a large JPEG may exceed the limits if it is not decoded downscaled.
        try:
            prepared = [images.prepare(images.decode_for_task(data, card), card) for data in contents]
        except ImageError:
            continue
        answers = predict(model, np.array(prepared).reshape(-1, *task.shape), task)[PROBABILITIES]
        if count := int((answers.argmax(axis=1) != probabilities[rows].argmax(axis=1)).sum()):
            yield (
                f"image_dataset_from_directory {habit}: so, {count} of {len(rows)} pictures get another "
                "answer. If the model was trained so, say it under [prepare] of the card"
            )
