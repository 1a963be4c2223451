"""A Keras model as a SavedModel that answers two signatures over the same weights."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from digit_training.errors import ModelError

SERVING_DEFAULT = "serving_default"
IMAGES = "images"
_BATCH = 500


def save(model: keras.Model, directory: Path) -> None:
    """Writes a model that maps pixels float32 [n, 784] to probabilities float32 [n, 10].

    `serving_default` reads pixels float32 [n, 784], 0..1; `images` reads images uint8 [n, 28, 28], 0..255.
    Raises ModelError where Keras runs another backend than TensorFlow, or the disk takes no more.
    """
    if keras.backend.backend() != "tensorflow":
        raise ModelError(
            "only TensorFlow writes what the model server reads: KERAS_BACKEND=tensorflow digits export"
        )
    # No constant: TensorFlow would rewrite the division as a multiplication, which is off by a bit.
    brightest = tf.Variable(255.0, trainable=False)

    @tf.function(input_signature=[tf.TensorSpec([None, 784], tf.float32, "pixels")])  # type: ignore[untyped-decorator]
    def from_pixels(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": model(pixels, training=False)}

    @tf.function(input_signature=[tf.TensorSpec([None, 28, 28], tf.uint8, "images")])  # type: ignore[untyped-decorator]
    def from_images(images: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels = tf.cast(tf.reshape(images, [-1, 784]), tf.float32) / brightest
        return {"probabilities": model(pixels, training=False)}

    # The weights alone: a module that held the model would store the state of its optimizer as well.
    module = tf.Module()
    module.weights = [brightest, *(weight.value for weight in model.weights)]
    signatures = {SERVING_DEFAULT: from_pixels, IMAGES: from_images}
    try:
        tf.saved_model.save(module, str(directory), signatures)
    except tf.errors.OpError as error:
        raise ModelError(f"{directory} can't be written: {error.message}") from error


def answers(directory: Path, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """The probabilities float32 [n, 10] that a saved model gives for pixels float32 [n, 784].

    Raises ModelError for one that can't be asked.
    """
    try:
        signature = tf.saved_model.load(str(directory)).signatures[SERVING_DEFAULT]
        batches = (pixels[start : start + _BATCH] for start in range(0, len(pixels), _BATCH))
        return np.concatenate(
            [signature(pixels=tf.constant(batch))["probabilities"].numpy() for batch in batches]
        )
    # What a damaged file or another model makes TensorFlow raise is not documented.
    except Exception as error:
        raise ModelError(f"{directory} can't be asked: {error}") from error
