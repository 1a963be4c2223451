"""Artifacts, written and read: a SavedModel with three signatures, warm-up requests and a model card."""

import json
import math
import platform
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from digit_core.artifact.task_card import TaskCard
from digit_core.artifact.verification import reason_of
from digit_core.artifact.versions import Version
from digit_core.tfserving.codec import (
    CARD_INPUT,
    CARD_OUTPUT,
    CARD_SIGNATURE,
    IMAGES_INPUT,
    IMAGES_SIGNATURE,
    LAYERS_SIGNATURE,
    NETWORK_OUTPUT,
    PIXELS_INPUT,
    PIXELS_SIGNATURE,
    WEIGHTS_SUFFIX,
)
from digit_training import provenance
from digit_training.classifier import Outputs, batch_size, split, to_pixels
from digit_training.drawing.negatives import KINDS
from digit_training.errors import ModelError
from digit_training.evaluation import Evaluation, Refusals
from digit_training.fit import MAX_REFUSED, FitResult, Threshold
from digit_training.models import activated, named_outputs, pixel_weights

WARMUP_BATCH_SIZES = (1, 32)
WARMUP_VALUES = 1_000_000
"""Most values of pixels in a warm-up request, unless one picture has more."""

_FIT_FIELDS = (
    *("examples", "feedback_examples", "synthetic_examples", "negative_examples", "validation_examples"),
    *("seed", "epochs", "best_epoch", "temperature", "device"),
)
"""Properties of a fit in the model card."""


class Origin(StrEnum):
    """Origin of a version's weights, for its model card."""

    FITTED = "fitted here"
    EXPORTED = "fitted elsewhere, and exported"
    SHIPPED = "shipped with digits"


def write_artifact(
    model: keras.Model,
    task: TaskCard,
    card: dict[str, Any],
    warmup_images: NDArray[np.uint8],
    directory: Path,
) -> None:
    """Write the SavedModel, and into `assets.extra` the warm-up requests and the model card.

    Raise ModelError if the SavedModel cannot be written.
    """
    save_model(model, task, directory, {"name": card.get("model"), "accuracy": card.get("accuracy")})
    write_extra(directory, card, warmup_requests(task, warmup_images))


def write_extra(directory: Path, card: dict[str, Any], requests: Iterable[PredictRequest]) -> None:
    """Write `assets.extra` of a SavedModel's folder: warm-up requests and model card."""
    extra = directory / "assets.extra"
    extra.mkdir()
    write_warmup_requests(extra / "tf_serving_warmup_requests", requests)
    (extra / "model.json").write_text(json.dumps(card, indent=2) + "\n")


def save_model(
    model: keras.Model, task: TaskCard, directory: Path, network: dict[str, Any] | None = None
) -> None:
    """Write a SavedModel of a model that maps pixels float32 [n, *instance_shape] to probabilities [n, k].

    Its signature `serving_default` takes pixels float32 [n, *instance_shape] in the card's range; `images`
    takes images uint8 [n, *shape] and scales them; both give `probabilities` float32 [n, k], and `is_digit`
    float32 [n] if the model has this output. `card` takes `unused` uint8 [n] and gives the task card as JSON,
    string [n], and `network`, as JSON, too; `layers` takes what `images` takes, and gives the activations of
    a network of digits and, if its first layer takes the pixels themselves, the weights of its units, float32
    [n, *shape, units]. Raise ModelError if the directory cannot be written.
    """
    low, high = task.range
    # A variable, since TensorFlow replaces division by a constant with a multiplication, which rounds
    # differently.
    max_pixel = tf.Variable(255.0, trainable=False)

    @tf.function(input_signature=[tf.TensorSpec([None, *task.instance_shape], tf.float32, PIXELS_INPUT)])  # type: ignore[untyped-decorator]
    def from_pixels(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        return named_outputs(model, model(pixels, training=False))

    def scale(images: tf.Tensor) -> tf.Tensor:
        pixels = tf.cast(tf.reshape(images, [-1, *task.instance_shape]), tf.float32)
        if task.range == (0, 255):
            return pixels
        pixels = pixels / max_pixel
        return pixels if task.range == (0, 1) else low + pixels * (high - low)

    @tf.function(input_signature=[tf.TensorSpec([None, *task.shape], tf.uint8, IMAGES_INPUT)])  # type: ignore[untyped-decorator]
    def from_images(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return named_outputs(model, model(scale(images), training=False))

    @tf.function(input_signature=[tf.TensorSpec([None, *task.shape], tf.uint8, IMAGES_INPUT)])  # type: ignore[untyped-decorator]
    def layers(images: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = dict(opened(scale(images), training=False))
        if kernel is not None:
            pictures = tf.reshape(tf.cast(kernel, tf.float32), [1, *task.shape[:2], -1])
            # TensorFlow Serving's batching needs as many rows as there are images.
            outputs[f"{min(outputs)}{WEIGHTS_SUFFIX}"] = tf.repeat(pictures, tf.shape(images)[0], axis=0)
        return outputs

    @tf.function(input_signature=[tf.TensorSpec([None], tf.uint8, CARD_INPUT)])  # type: ignore[untyped-decorator]
    def card(unused: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = {CARD_OUTPUT: task.to_document()} | ({NETWORK_OUTPUT: network} if network else {})
        return {name: tf.fill(tf.shape(unused), json.dumps(value)) for name, value in outputs.items()}

    # The module holds only the weights: with the model, the optimizer's state would be saved as well.
    module = tf.Module()
    module.weights = [max_pixel, *(weight.value for weight in model.weights)]
    signatures = {PIXELS_SIGNATURE: from_pixels, IMAGES_SIGNATURE: from_images, CARD_SIGNATURE: card}
    if activations := activated(model) if task.kind == "digits" else {}:
        opened, kernel = keras.Model(model.inputs, activations), pixel_weights(model, math.prod(task.shape))
        signatures[LAYERS_SIGNATURE] = layers
    try:
        tf.saved_model.save(module, str(directory), signatures)
    except tf.errors.OpError as error:
        raise ModelError(f"{directory} cannot be written: {error.message}") from error
    except AssertionError as error:
        # TensorFlow's exception for a lookup table, or another resource that is no variable.
        raise ModelError("the model holds a resource other than variables, such as a lookup table") from error


def predict_saved_model(directory: Path, *images: NDArray[np.uint8]) -> list[Outputs]:
    """Return `probabilities` [n, k], and `is_digit` [n] if any, for each array of images uint8 [n, *shape].

    Raise ModelError if the artifact cannot be loaded or fails.
    """
    try:
        signature = tf.saved_model.load(str(directory)).signatures[IMAGES_SIGNATURE]
        answers = []
        for pictures in images:
            batches = split(pictures, batch_size(pictures))
            parts = [signature(**{IMAGES_INPUT: tf.constant(batch)}) for batch in batches]
            answers.append({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
        return answers
    # TensorFlow does not document its exceptions for damaged or incompatible SavedModels.
    except Exception as error:
        raise ModelError(f"{directory} cannot be loaded and evaluated: {reason_of(error)}") from error


def read_weights(version: Version, model: keras.Model, leading: int = 1) -> list[NDArray[np.float32]]:
    """Return the weights of a version for `model`, a network of the same architecture.

    `leading` variables come before them: the divisor of a classifier's pixels; see save_model.

    The last layers have the temperature and the threshold of `is_digit` folded in. Raise ModelError if the
    version has another architecture or cannot be loaded.
    """
    try:
        saved = [weight.numpy() for weight in tf.saved_model.load(str(version.path)).weights[leading:]]
    # TensorFlow does not document its exceptions for damaged or incompatible SavedModels.
    except Exception as error:
        raise ModelError(f"{version.path} cannot be loaded: {error}") from error
    name, shapes = version.card().get("model"), [weight.shape for weight in saved]
    if name != model.name or shapes != [weight.shape for weight in model.weights]:
        raise ModelError(f"{version.path} is no {model.name}, so that its weights cannot start one")
    return saved


def versions() -> dict[str, str]:
    """Return the versions of Python, of this package and of its libraries, for a model card."""
    return {
        "python": platform.python_version(),
        "digits": installed_version("digits"),
        **{library.__name__: library.__version__ for library in (keras, tf, np)},
    }


def model_card(
    model: keras.Model,
    task: TaskCard,
    data: dict[str, Any] | None,
    evaluation: Evaluation | None,
    fit: FitResult | None = None,
) -> dict[str, Any]:
    """Return the model card as JSON values.

    `data` describes the data of fit and evaluation; both are None for a model that is not evaluated. `fit` is
    None for a model that was fitted elsewhere. Those who fit the model add `command`, those who compare it
    `comparisons`.
    """
    refusals, scores = (evaluation.refusals, evaluation.scores) if evaluation else (None, None)
    calibration = evaluation.calibration if evaluation else None
    return {
        "model": model.name,
        "task": task.to_document(),
        "origin": Origin.FITTED if fit else Origin.EXPORTED,
        "command": None,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "parameters": model.count_params(),
        "accuracy": evaluation.accuracy if evaluation and not scores else None,
        "multi_label": asdict(scores) if scores else None,
        "calibration_error": evaluation.calibration_error if evaluation else None,
        # The temperature by which callers may divide logits, and the error that remains.
        "calibration": calibration
        and {"best_temperature": calibration.temperature, "error_at_it": calibration.error},
        "is_digit": _is_digit_card(refusals, fit.threshold if fit else None) if refusals else None,
        "comparisons": None,
        "forced": None,
        "data": data,
        "fit": _fit_card(fit) if fit else None,
        "source": provenance.describe(),
        "versions": versions(),
    }


def _is_digit_card(refusals: Refusals, threshold: Threshold | None) -> dict[str, Any]:
    """Return the refused shares of digits and negatives, and how the threshold was chosen, if known."""
    shares = {kind: scored.refused_share for kind, scored in refusals.negatives.items()}
    chosen_on = threshold and {
        "readable_digits": threshold.readable_digits,
        "refused": threshold.refused_share,
        "max_refused": MAX_REFUSED,
    }
    return {
        "threshold": threshold.value if threshold else None,
        "chosen_on": chosen_on,
        "refused_digits": refusals.digits.refused_share,
        "refused_negatives": {name: shares[name] for name, kind in KINDS.items() if not kind.is_held_out},
        "refused_held_out_negatives": {
            name: shares[name] for name, kind in KINDS.items() if kind.is_held_out
        },
    }


def _fit_card(fit: FitResult) -> dict[str, Any]:
    return {
        **{name: getattr(fit, name) for name in _FIT_FIELDS},
        **{name: getattr(fit.recipe, name) for name in ("augmented", "batch_size", "learning_rate")},
        "optimizer": fit.recipe.optimizer.__name__,
        "seconds": round(fit.seconds, 1),
        "backend": keras.backend.backend(),
    }


def write_warmup_requests(path: Path, requests: Iterable[PredictRequest]) -> None:
    """Write a TFRecord file with these requests, as a model server reads it."""
    with tf.io.TFRecordWriter(str(path)) as records:
        for request in requests:
            records.write(PredictionLog(predict_log={"request": request}).SerializeToString())


def warmup_requests(task: TaskCard, images: NDArray[np.uint8]) -> Iterator[PredictRequest]:
    """Yield a prediction request for each warm-up batch size and signature."""
    most = max(1, WARMUP_VALUES // math.prod(task.shape))
    for size in sorted({min(size, most) for size in WARMUP_BATCH_SIZES}):
        batch = images[:size]
        for signature, key, values in (
            (PIXELS_SIGNATURE, PIXELS_INPUT, to_pixels(batch, task)),
            (IMAGES_SIGNATURE, IMAGES_INPUT, batch),
        ):
            request = PredictRequest()
            request.model_spec.name = task.name
            request.model_spec.signature_name = signature
            request.inputs[key].CopyFrom(tf.make_tensor_proto(values))
            yield request
