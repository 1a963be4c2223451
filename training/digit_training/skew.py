"""Training-serving skew: pictures as Keras's loader prepares them, against their preparation in serving."""

from pathlib import Path
from tempfile import TemporaryDirectory

import keras
import numpy as np
from numpy.typing import NDArray

from digit_core.artifact.task_card import TaskCard
from digit_training.classifier import batch_size
from digit_training.models import PROBABILITIES, named_outputs
from digit_training.pictures import LabelledPictures

MAX_PICTURES = 64

_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png"}
"""Suffixes of the files that Keras's loader reads."""


def count_other_answers(
    model: keras.Model, pictures: LabelledPictures, probabilities: NDArray[np.float32]
) -> tuple[int, int]:
    """Return how many pictures get another answer as `image_dataset_from_directory` prepares them, and of
    how many.

    `probabilities` [n, k] are the model's answers as in serving. Up to MAX_PICTURES of a folder for each
    label are compared; none of other pictures, which this loader does not read.
    """
    folder, task = pictures.path, pictures.task
    if folder is None or not folder.is_dir() or task.kind != "resize":
        return 0, 0
    files = [folder / name for name in pictures.names]
    rows = [row for row, file in enumerate(files) if file.suffix.lower() in _SUFFIXES and file.is_file()]
    rows = rows[:: max(1, -(-len(rows) // MAX_PICTURES))]
    if not rows:
        return 0, 0
    low, high = task.range
    loaded = _load([files[row] for row in rows], task)
    pixels = low + loaded.reshape(-1, *task.instance_shape) * np.float32((high - low) / 255)
    answers = model.predict(pixels, batch_size=batch_size(pictures.examples.images), verbose=0)
    others = named_outputs(model, answers)[PROBABILITIES].argmax(axis=1) != probabilities[rows].argmax(axis=1)
    return int(others.sum()), len(rows)


def _load(files: list[Path], task: TaskCard) -> NDArray[np.float32]:
    """Return the files' pixels, 0..255, by Keras's loader with the card's size, colour and fit."""
    with TemporaryDirectory() as folder:
        for number, file in enumerate(files):
            # The loader sorts by name.
            Path(folder, f"{number:04}{file.suffix}").symlink_to(file.resolve())
        loaded = keras.utils.image_dataset_from_directory(
            folder,
            labels=None,
            color_mode="grayscale" if task.color == "grey" else "rgb",
            image_size=task.shape[:2],
            shuffle=False,
            crop_to_aspect_ratio=task.fit == "crop",
            pad_to_aspect_ratio=task.fit == "pad",
            verbose=False,
        )
        return np.concatenate([batch.numpy() for batch in loaded])
