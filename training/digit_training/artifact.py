"""Artifacts that are published: their answers, their weights and their cards."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from digit_client import DIGITS, TaskCard, TaskCardError
from digit_client.tfserving.codec import IMAGES_INPUT, IMAGES_SIGNATURE
from digit_training.classifier import Outputs, batch_size, split
from digit_training.errors import ModelError


def predict_saved_model(directory: Path, *images: NDArray[np.uint8]) -> list[Outputs]:
    """Return `probabilities` [n, k], and `is_digit` [n] if any, for each array of images uint8 [n, *shape].

    Raise ModelError if the artifact cannot be loaded or fails.
    """
    try:
        signature = tf.saved_model.load(str(directory)).signatures[IMAGES_SIGNATURE]
        return [_ask(signature, pictures) for pictures in images]
    # TensorFlow does not document its exceptions for damaged or incompatible SavedModels.
    except Exception as error:
        raise ModelError(f"{directory} cannot be loaded and evaluated: {error}") from error


def read_weights(directory: Path, model: keras.Model) -> list[NDArray[np.float32]]:
    """Return the weights of an artifact for `model`, a network of the same architecture.

    The last layers have the temperature and the threshold of `is_digit` folded in. Raise ModelError if the
    artifact has another architecture or cannot be loaded.
    """
    name = read_card(directory).get("model")
    try:
        # The first variable is the divisor of the pixels; see save_model.
        saved = [weight.numpy() for weight in tf.saved_model.load(str(directory)).weights[1:]]
    # TensorFlow does not document its exceptions for damaged or incompatible SavedModels.
    except Exception as error:
        raise ModelError(f"{directory} cannot be loaded: {error}") from error
    if name != model.name or [weight.shape for weight in saved] != [w.shape for w in model.weights]:
        raise ModelError(f"{directory} is no {model.name}, so that its weights cannot start one")
    return saved


def read_card(directory: Path) -> dict[str, Any]:
    """Return the model card of an artifact; {} without one. Raise ModelError."""
    path = directory / "assets.extra" / "model.json"
    try:
        return dict(json.loads(path.read_text())) if path.exists() else {}
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{path} is no valid model card: {error}") from error


def read_task(directory: Path) -> TaskCard:
    """Return the task card of an artifact; without a card, it is of the digits. Raise ModelError."""
    card = read_card(directory)
    try:
        return TaskCard.from_document(card["task"]) if "task" in card else DIGITS
    except (TypeError, TaskCardError) as error:
        raise ModelError(f"the model card of {directory} holds no valid task card: {error}") from error


def _ask(signature: Any, images: NDArray[np.uint8]) -> Outputs:
    parts = [signature(**{IMAGES_INPUT: tf.constant(batch)}) for batch in split(images, batch_size(images))]
    return {name: np.concatenate([part[name].numpy() for part in parts]) for name in parts[0]}
