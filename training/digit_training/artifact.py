"""Published versions: their answers and their weights."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from digit_client.artifact.versions import Version
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
        reason = str(error).partition("\n")[0]
        raise ModelError(f"{directory} cannot be loaded and evaluated: {reason}") from error


def read_weights(version: Version, model: keras.Model) -> list[NDArray[np.float32]]:
    """Return the weights of a version for `model`, a network of the same architecture.

    The last layers have the temperature and the threshold of `is_digit` folded in. Raise ModelError if the
    version has another architecture or cannot be loaded.
    """
    try:
        # The first variable is the divisor of the pixels; see save_model.
        saved = [weight.numpy() for weight in tf.saved_model.load(str(version.path)).weights[1:]]
    # TensorFlow does not document its exceptions for damaged or incompatible SavedModels.
    except Exception as error:
        raise ModelError(f"{version.path} cannot be loaded: {error}") from error
    name, shapes = version.card().get("model"), [weight.shape for weight in saved]
    if name != model.name or shapes != [weight.shape for weight in model.weights]:
        raise ModelError(f"{version.path} is no {model.name}, so that its weights cannot start one")
    return saved


def _ask(signature: Any, images: NDArray[np.uint8]) -> Outputs:
    parts = [signature(**{IMAGES_INPUT: tf.constant(batch)}) for batch in split(images, batch_size(images))]
    return {name: np.concatenate([part[name].numpy() for part in parts]) for name in parts[0]}
