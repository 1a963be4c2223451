"""Artifact export: a SavedModel with two signatures, warm-up requests and a model card."""

import json
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
from digit_training.evaluation import Evaluation, Refusals
from digit_training.fit import MAX_REFUSED, FitResult
from digit_training.models import named_outputs
from digit_training.negatives import KINDS

PIXELS_SIGNATURE = "serving_default"
IMAGES_SIGNATURE = "images"
MODEL_NAME = "digits"
WARMUP_BATCH_SIZES = (1, 32)
LIBRARIES = ("digit-serving", "keras", "tensorflow", "numpy")
"""Distributions whose versions the model card states."""

_PREDICT_BATCH_SIZE = 500


def write_artifact(
    model: keras.Model, card: dict[str, Any], warmup_examples: Examples, directory: Path
) -> None:
    """Write the SavedModel, and into `assets.extra` the warm-up requests and the model card.

    Raise ModelError if the SavedModel cannot be written.
    """
    save_model(model, directory)
    extra = directory / "assets.extra"
    extra.mkdir()
    write_warmup_requests(extra / "tf_serving_warmup_requests", warmup_examples)
    (extra / "model.json").write_text(json.dumps(card, indent=2) + "\n")


def save_model(model: keras.Model, directory: Path) -> None:
    """Write a SavedModel of a model that maps pixels float32 [n, 784] to probabilities float32 [n, 10].

    The SavedModel also gives `is_digit` float32 [n] if the model has this output. Its signature
    `serving_default` takes pixels float32 [n, 784], 0..1; `images` takes images uint8 [n, 28, 28], 0..255.
    Raise ModelError if Keras runs on another backend than TensorFlow, or if the directory cannot be written.
    """
    if keras.backend.backend() != "tensorflow":
        raise ModelError(
            "only Keras's TensorFlow backend writes SavedModels: KERAS_BACKEND=tensorflow digits export …"
        )
    # A variable, since TensorFlow replaces division by a constant with a multiplication, which rounds
    # differently.
    max_pixel = tf.Variable(255.0, trainable=False)

    @tf.function(input_signature=[tf.TensorSpec([None, 784], tf.float32, "pixels")])  # type: ignore[untyped-decorator]
    def from_pixels(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        return named_outputs(model, model(pixels, training=False))

    @tf.function(input_signature=[tf.TensorSpec([None, 28, 28], tf.uint8, "images")])  # type: ignore[untyped-decorator]
    def from_images(images: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels = tf.cast(tf.reshape(images, [-1, 784]), tf.float32) / max_pixel
        return named_outputs(model, model(pixels, training=False))

    # The module holds only the weights: with the model, the optimizer's state would be saved as well.
    module = tf.Module()
    module.weights = [max_pixel, *(weight.value for weight in model.weights)]
    signatures = {PIXELS_SIGNATURE: from_pixels, IMAGES_SIGNATURE: from_images}
    try:
        tf.saved_model.save(module, str(directory), signatures)
    except tf.errors.OpError as error:
        raise ModelError(f"{directory} cannot be written: {error.message}") from error


def predict_saved_model(directory: Path, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probabilities float32 [n, 10] of a SavedModel for pixels float32 [n, 784].

    Raise ModelError if it cannot be loaded or fails.
    """
    starts = range(0, len(pixels), _PREDICT_BATCH_SIZE)
    try:
        signature = tf.saved_model.load(str(directory)).signatures[PIXELS_SIGNATURE]
        batches = (pixels[start : start + _PREDICT_BATCH_SIZE] for start in starts)
        return np.concatenate(
            [signature(pixels=tf.constant(batch))["probabilities"].numpy() for batch in batches]
        )
    # TensorFlow does not document its exceptions for damaged or incompatible SavedModels.
    except Exception as error:
        raise ModelError(f"{directory} cannot be loaded and evaluated: {error}") from error


def write_warmup_requests(path: Path, examples: Examples) -> None:
    """Write a TFRecord file with a prediction request for each warm-up batch size and signature."""
    with tf.io.TFRecordWriter(str(path)) as records:
        for request in _warmup_requests(examples):
            log = PredictionLog(predict_log={"request": request})
            records.write(log.SerializeToString())


def model_card(
    model: keras.Model, dataset: Dataset, evaluation: Evaluation, fit: FitResult | None = None
) -> dict[str, Any]:
    """Return the model card as JSON values.

    `fit` is None for a model that was fitted elsewhere; `data` then describes the data of the evaluation.
    """
    return {
        "model": model.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "parameters": model.count_params(),
        "accuracy": evaluation.accuracy,
        "calibration_error": evaluation.calibration_error,
        "is_digit": _is_digit_card(evaluation.refusals, fit) if evaluation.refusals else None,
        "data": {
            "source": dataset.source,
            "canonical": dataset.canonical,
            "offline": dataset.offline,
            "md5": dataset.md5,
            "train": len(dataset.train),
            "test": len(dataset.test),
        },
        "fit": _fit_card(fit) if fit else None,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
    }


def _is_digit_card(refusals: Refusals, fit: FitResult | None) -> dict[str, Any]:
    """Return the refused shares of digits and negatives, and how the threshold was chosen, if known."""
    shares = {kind: scored.refused_share for kind, scored in refusals.negatives.items()}
    threshold = fit.threshold if fit else None
    return {
        "threshold": threshold.value if threshold else None,
        "chosen_on": {
            "readable_digits": threshold.readable_digits,
            "refused": threshold.refused_share,
            "max_refused": MAX_REFUSED,
        }
        if threshold
        else None,
        "refused_digits": refusals.digits.refused_share,
        "refused_negatives": {name: shares[name] for name, kind in KINDS.items() if not kind.is_held_out},
        "refused_held_out_negatives": {
            name: shares[name] for name, kind in KINDS.items() if kind.is_held_out
        },
    }


def _fit_card(fit: FitResult) -> dict[str, Any]:
    return {
        "examples": fit.examples,
        "synthetic_examples": fit.synthetic_examples,
        "negative_examples": fit.negative_examples,
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


def _warmup_requests(examples: Examples) -> Iterator[PredictRequest]:
    for size in WARMUP_BATCH_SIZES:
        batch = examples[:size]
        for signature, key, values in (
            (PIXELS_SIGNATURE, "pixels", batch.pixels),
            (IMAGES_SIGNATURE, "images", batch.images),
        ):
            request = PredictRequest()
            request.model_spec.name = MODEL_NAME
            request.model_spec.signature_name = signature
            request.inputs[key].CopyFrom(tf.make_tensor_proto(values))
            yield request
