"""Training-serving skew: pictures that Keras's loader prepares, compared with serving."""

from collections.abc import Iterator
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

_KERAS: dict[str, tuple[Any, str]] = {
    "interpolation": ("bilinear", 'scales down by default without averaging (interpolation = "bilinear")'),
    "alpha": ("ignore", 'ignores transparency (alpha = "ignore")'),
    "exif": (False, "does not turn photographs as EXIF says (exif = false)"),
}
"""Entries of a card with which a picture is prepared as `image_dataset_from_directory` does by default."""


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
