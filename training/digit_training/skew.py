"""Training-serving skew: pictures as Keras's loader prepares them, against their preparation in serving."""

from dataclasses import replace
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from digit_core import images
from digit_core.errors import ImageError
from digit_training.classifier import predict
from digit_training.models import PROBABILITIES
from digit_training.pictures import LabelledPictures

MAX_PICTURES = 64

KERAS: dict[str, Any] = {"interpolation": "bilinear", "alpha": "ignore", "exif": False}
"""Entries of a card with which a picture is prepared as `image_dataset_from_directory` does by default."""


def count_other_answers(
    model: keras.Model, pictures: LabelledPictures, probabilities: NDArray[np.float32]
) -> tuple[dict[str, int], int]:
    """Return how many pictures get another answer by each entry of KERAS, and of how many.

    `probabilities` [n, k] are the model's answers as in serving. Up to MAX_PICTURES of a folder for each
    label are compared; none of other pictures, which this loader does not read.
    """
    folder, task = pictures.path, pictures.task
    if folder is None or not folder.is_dir() or task.kind != "resize":
        return {}, 0
    files = [folder / name for name in pictures.names]
    rows = [row for row, file in enumerate(files) if file.is_file()]
    rows = rows[:: max(1, -(-len(rows) // MAX_PICTURES))]
    contents = [files[row].read_bytes() for row in rows]
    others: dict[str, int] = {}
    for entry, value in KERAS.items():
        card = replace(task, **{entry: value})
        # The file of a large JPEG may exceed the limits if it is not decoded downscaled.
        try:
            prepared = [images.prepare(images.decode_for_task(data, card), card) for data in contents]
        except ImageError:
            continue
        answers = predict(model, np.array(prepared).reshape(-1, *task.shape), task)[PROBABILITIES]
        if count := int((answers.argmax(axis=1) != probabilities[rows].argmax(axis=1)).sum()):
            others[entry] = count
    return others, len(rows)
