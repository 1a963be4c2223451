"""A Keras model as a SavedModel that answers two signatures over the same weights."""

from pathlib import Path

import keras
import tensorflow as tf

SERVING_DEFAULT = "serving_default"
IMAGES = "images"


class _Signatures(tf.Module):  # type: ignore[misc]
    """`serving_default`: pixels float32 [n, 784], 0..1. `images`: images uint8 [n, 28, 28], 0..255."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.model = model

    @tf.function(input_signature=[tf.TensorSpec([None, 784], tf.float32, "pixels")])  # type: ignore[untyped-decorator]
    def from_pixels(self, pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": self.model(pixels, training=False)}

    @tf.function(input_signature=[tf.TensorSpec([None, 28, 28], tf.uint8, "images")])  # type: ignore[untyped-decorator]
    def from_images(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels = tf.reshape(tf.cast(images, tf.float32) / 255.0, [-1, 784])
        return {"probabilities": self.model(pixels, training=False)}


def save(model: keras.Model, directory: Path) -> None:
    """Writes the SavedModel of a model that maps float32 [n, 784] to float32 [n, 10]."""
    module = _Signatures(model)
    tf.saved_model.save(
        module, str(directory), signatures={SERVING_DEFAULT: module.from_pixels, IMAGES: module.from_images}
    )
