"""A Keras model as a SavedModel that answers two signatures over the same weights."""

import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from digit_training.data import Dataset, Examples
from digit_training.errors import ModelError
from digit_training.evaluation import Evaluation
from digit_training.fit import Fit

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


MODEL_NAME = "digits"
BATCH_SIZES = (1, 32)


def write(path: Path, examples: Examples) -> None:
    """Writes a TFRecord file of one request for each signature and batch size."""
    with tf.io.TFRecordWriter(str(path)) as records:
        for request in _requests(examples):
            log = PredictionLog(predict_log={"request": request})
            records.write(log.SerializeToString())


def _requests(examples: Examples) -> Iterator[PredictRequest]:
    for size in BATCH_SIZES:
        batch = examples[:size]
        for signature, key, values in (
            (SERVING_DEFAULT, "pixels", batch.pixels),
            (IMAGES, "images", batch.images),
        ):
            request = PredictRequest()
            request.model_spec.name = MODEL_NAME
            request.model_spec.signature_name = signature
            request.inputs[key].CopyFrom(tf.make_tensor_proto(values))
            yield request


LIBRARIES = ("digit-serving", "keras", "tensorflow", "numpy")


def card(
    model: keras.Model, dataset: Dataset, evaluation: Evaluation, fit: Fit | None = None
) -> dict[str, Any]:
    """`fit` is null for a model fitted elsewhere: the data are then those it was judged on."""
    return {
        "model": model.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "parameters": model.count_params(),
        "accuracy": evaluation.accuracy,
        "calibration_error": evaluation.calibration_error,
        "data": {
            "source": dataset.source,
            "canonical": dataset.canonical,
            "offline": dataset.offline,
            "md5": dataset.md5,
            "train": len(dataset.train),
            "test": len(dataset.test),
        },
        "fit": _fit(fit) if fit else None,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
    }


def _fit(fit: Fit) -> dict[str, Any]:
    return {
        "examples": fit.examples,
        "drawn": fit.drawn,
        "validation_examples": fit.validation_examples,
        "seed": fit.seed,
        "networks": fit.networks,
        "epochs": fit.epochs,
        "best_epoch": fit.best_epoch,
        "temperature": fit.temperature,
        "augmented": fit.recipe.augmented,
        "batch_size": fit.recipe.batch_size,
        "learning_rate": fit.recipe.learning_rate,
        "optimizer": fit.recipe.optimizer.__name__,
        "seconds": round(fit.seconds, 1),
        "device": fit.device,
        "backend": keras.backend.backend(),
    }
