"""Classifiers to publish: Keras files and SavedModels, checked against a task card.

A classifier is a Keras model that maps pixels float32 [n, *instance_shape] of its card to probabilities
float32 [n, k].
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from digit_core.artifact.task_card import TaskCard
from digit_core.artifact.verification import reason_of
from digit_training.errors import ModelError
from digit_training.models import IS_DIGIT, PROBABILITIES, named_outputs

Outputs = dict[str, NDArray[np.float32]]
Output = Literal["probabilities", "logits", "sigmoid", "multi-label"]
"""What a model to export answers: probabilities [n, k]; logits [n, k], or [n, 1] of the second of two labels;
a sigmoid [n, 1], the probability of the second of two labels; or, of a multi-label task, sigmoids [n, k]."""
Shape = tuple[int | None, ...]
"""Shape of one picture; None stands for any size."""


@dataclass(frozen=True, slots=True)
class Convention:
    """Pixels and answers of a model to export, where the published version has others.

    The published version takes RGB in the card's range and answers probabilities; the conversions become
    part of its graph.
    """

    output: Output = "probabilities"
    output_name: str | None = None
    """Output of the labels, of a model with several."""
    mean: tuple[float, ...] = ()
    """Subtracted from pixels in the card's range: one number, or one for each of the model's channels."""
    std: tuple[float, ...] = ()
    """Divisor of what is left, likewise."""
    is_bgr: bool = False
    """True if blue is the first channel."""


BATCH_SIZE = 500
"""Most pictures in a batch of a prediction."""

BATCH_VALUES = 500_000
"""Most values of pixels in a batch of a prediction, unless one picture has more."""

CHUNK_BATCHES = 25
"""Batches whose pixels are in memory as float32 at a time."""

_GUIDE = "docs/how-to/bring-a-model.md"

_TOLERANCE = 1e-3
"""Largest distance from 1 of a sum of probabilities."""

_HALF_TOLERANCE = 2e-2
"""The same of 16-bit numbers; bfloat16 has 8 bits of precision."""

_KEEPS_RANGE = (
    layers.InputLayer,
    layers.Permute,
    layers.Reshape,
    layers.CenterCrop,
    layers.Cropping2D,
    layers.Resizing,
    layers.ZeroPadding2D,
)
"""Layers that leave the range of the pixels as it is."""

_AUGMENTATIONS = ("AugMix", "CutMix", "GaussianNoise", "MixUp", "RandAugment", "Random")
"""First letters of layers, of all versions of Keras, that do nothing when the model predicts."""


def check_backend() -> None:
    """Raise ModelError if Keras runs on another backend than TensorFlow, which alone writes SavedModels."""
    if keras.backend.backend() != "tensorflow":
        raise ModelError(
            "only Keras's TensorFlow backend writes SavedModels: KERAS_BACKEND=tensorflow digits export …"
        )


def load_keras(file: Path) -> keras.Model:
    """Return the model in a `.keras` or legacy `.h5` file. Raise ModelError if Keras cannot load it."""
    if file.is_dir():
        raise ModelError("a folder is exported by --from-saved-model")
    try:
        model = keras.saving.load_model(file, compile=False)
    # Keras does not document its exceptions for damaged files and unknown layers.
    except Exception as error:
        # The last line is the reason; the configuration of a layer may be thousands of characters long.
        reason, *_ = (
            (str(error).strip() or type(error).__name__).splitlines()[-1].partition(" Full object config:")
        )
        raise ModelError(
            f"not a model that Keras can load: {reason.rstrip('.')}. Import a layer by --import MODULE; "
            f"export a model with a Lambda layer, or of Keras 2, as a SavedModel (see {_GUIDE})"
        ) from error
    if not getattr(model, "inputs", None):
        raise ModelError(
            "the model states no shape of its input: build it from keras.Input, or export a SavedModel (see "
            f"{_GUIDE})"
        )
    batch, *shape = model.inputs[0].shape
    if batch is None or len(model.inputs) > 1:
        return model
    # A Sequential that was built by calling it has the size of that batch.
    inputs = keras.Input(shape, dtype=model.inputs[0].dtype)
    clone = keras.models.clone_model(model, input_tensors=inputs)
    clone.set_weights(model.get_weights())
    return clone


def load_saved_model(folder: Path, signature: str) -> keras.Model:
    """Return a signature of a SavedModel as a model that shares its variables.

    Raise ModelError if it cannot be loaded, or does not take one tensor of float32 or uint8.
    """
    import tensorflow as tf

    if not (folder / "saved_model.pb").is_file():
        raise ModelError("not a SavedModel: the folder has no saved_model.pb")
    try:
        signatures = tf.saved_model.load(str(folder)).signatures
    # TensorFlow does not document its exceptions for damaged or incompatible SavedModels.
    except Exception as error:
        raise ModelError(f"not a SavedModel that TensorFlow can load: {reason_of(error)}") from error
    if signature not in signatures:
        known = ", ".join(sorted(signatures)) or "none"
        raise ModelError(f"there is no signature {signature!r} (see --signature); signatures: {known}")
    (input_specs,) = signatures[signature].structured_input_signature[1:]
    if len(input_specs) != 1:
        raise ModelError(f"the signature {signature!r} has {len(input_specs)} inputs, not one")
    (input_spec,) = input_specs.values()
    if input_spec.dtype not in (tf.float32, tf.uint8):
        raise ModelError(f"the signature {signature!r} takes {input_spec.dtype.name}, not float32 or uint8")
    if input_spec.shape.rank is None:
        raise ModelError(f"the signature {signature!r} states no shape of its input")
    pixels = keras.Input(batch_shape=input_spec.shape.as_list(), dtype=input_spec.dtype.name, name="pixels")
    answers = layers.TFSMLayer(str(folder), call_endpoint=signature)(pixels)
    return keras.Model(pixels, answers, name=re.sub(r"\W", "_", folder.name) or "saved_model")


def input_shape(model: keras.Model) -> Shape:
    """Return the shape of one picture. Raise ModelError if the model has several inputs or a fixed batch."""
    if len(model.inputs) != 1:
        raise ModelError(f"the model has {len(model.inputs)} inputs, not one")
    batch, *shape = model.inputs[0].shape
    if batch is not None:
        raise ModelError(f"the model takes batches of {batch} only; build it without a batch size")
    if (dtype := model.inputs[0].dtype) not in ("float32", "uint8"):
        raise ModelError(f"the model takes {dtype}, not float32 or uint8")
    return tuple(shape)


def takes_bytes(model: keras.Model) -> bool:
    """True if the model takes 0..255: uint8, or a first layer that scales it.

    Such a layer is a Rescaling, or a Normalization adapted to bytes.
    """
    if model.inputs[0].dtype == "uint8":
        return True
    first = _first_scaling_layer(model)
    if isinstance(first, layers.Rescaling):
        return bool(np.max(first.scale) < 1)
    # Pixels in 0..1 or -1..1 have means of at most 1.
    return isinstance(first, layers.Normalization) and bool(np.max(first.mean) > 1)


def adapt(model: keras.Model, task: TaskCard, convention: Convention = Convention()) -> keras.Model:
    """Return a model that takes [n, *instance_shape] and shares the weights.

    It answers probabilities [n, k] of the labels, whatever the model's convention; the output of a
    multi-label card is "multi-label". Raise ModelError if input or output contradict the card, or if the
    answers to random pictures are not what the convention says. A dictionary of `probabilities` and
    `is_digit` [n, 1] is an output for the ten digits only.
    """
    shape, dtype = _input_for(model, task), model.inputs[0].dtype
    outputs = model.compute_output_spec(model.inputs[0])
    has_is_digit = (
        task.reads_numbers
        and isinstance(outputs, dict)
        and set(outputs) == {PROBABILITIES, IS_DIGIT}
        and outputs[IS_DIGIT].shape[1:] == (1,)
    )
    name = PROBABILITIES if has_is_digit else convention.output_name
    spec = _select(outputs, model, name)
    _check_output(spec, task, convention.output)
    pixels = keras.Input(task.instance_shape, name="pixels")
    answers = model(_to_input(pixels, shape, dtype, convention))
    if not has_is_digit:
        answers = _to_probabilities(_select(answers, model, name), convention.output)
    adapted = keras.Model(pixels, answers, name=model.name)
    noise = np.random.default_rng(0).integers(0, 256, (2, *task.shape), np.uint8)
    try:
        probabilities = predict(adapted, noise, task)[PROBABILITIES]
    # TensorFlow does not document its exceptions for models that fail.
    except Exception as error:
        raise ModelError(f"it fails to answer: {reason_of(error)}") from error
    is_half = spec.dtype in ("float16", "bfloat16")
    check_probabilities(probabilities, task, _HALF_TOLERANCE if is_half else _TOLERANCE)
    if is_half and not task.is_multi_label:
        answers = answers / keras.ops.sum(answers, axis=1, keepdims=True)
        adapted = keras.Model(pixels, answers, name=model.name)
    return adapted


def _to_input(
    pixels: keras.KerasTensor, shape: tuple[int, ...], dtype: str, convention: Convention
) -> keras.KerasTensor:
    """Return pixels [n, *instance_shape] in the shape, the type and the convention of a model."""
    values = keras.ops.flip(pixels, axis=-1) if convention.is_bgr else pixels
    if convention.mean:
        values = values - np.array(convention.mean, np.float32)
    if convention.std:
        values = values / np.array(convention.std, np.float32)
    if shape != values.shape[1:]:
        is_turned = shape == channels_first(values.shape[1:])
        values = layers.Permute((3, 1, 2))(values) if is_turned else layers.Reshape(shape)(values)
    return keras.ops.cast(keras.ops.round(values), "uint8") if dtype == "uint8" else values


def _to_probabilities(answers: keras.KerasTensor, output: Output) -> keras.KerasTensor:
    """Return probabilities float32 [n, k] of what a model answers, [n, k] or [n, 1, 1, k]."""
    answers = keras.ops.cast(answers, "float32")
    if len(answers.shape) > 2:
        answers = layers.Reshape(answers.shape[-1:])(answers)
    if output in ("probabilities", "multi-label"):
        return answers
    if answers.shape[1] > 1:
        return layers.Softmax(dtype="float32")(answers)
    second = answers if output == "sigmoid" else layers.Activation("sigmoid", dtype="float32")(answers)
    return keras.ops.concatenate([1 - second, second], axis=1)


def channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape [c, h, w] of [h, w, c]; another shape as it is."""
    return (shape[2], *shape[:2]) if len(shape) == 3 else shape


def to_pixels(images: NDArray[np.uint8], task: TaskCard) -> NDArray[np.float32]:
    """Return the input of a classifier for images uint8 [n, *shape]: float32 [n, *instance_shape].

    The operations are those of the signature `images`, so that the results are equal in every bit.
    """
    values = images.reshape(-1, *task.instance_shape).astype(np.float32)
    if task.range == (0, 255):
        return values
    values /= np.float32(255)
    low, high = task.range
    return values if task.range == (0, 1) else np.float32(low) + values * np.float32(high - low)


def predict(model: keras.Model, images: NDArray[np.uint8], task: TaskCard) -> Outputs:
    """Return `probabilities` [n, k] for images uint8 [n, *shape], and `is_digit` [n] if there is one."""
    size = batch_size(images)
    parts = [
        named_outputs(model, model.predict(to_pixels(chunk, task), batch_size=size, verbose=0))
        for chunk in split(images, CHUNK_BATCHES * size)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def batch_size(images: NDArray[np.uint8]) -> int:
    """Return the number of images [n, …] in a batch of bounded memory."""
    return max(1, min(BATCH_SIZE, BATCH_VALUES // math.prod(images.shape[1:])))


def split(images: NDArray[np.uint8], size: int) -> list[NDArray[np.uint8]]:
    """Split images [n, …] into parts of at most `size`."""
    return [images[start : start + size] for start in range(0, len(images), size)]


def check_probabilities(
    probabilities: NDArray[np.float32], task: TaskCard, tolerance: float = _TOLERANCE
) -> None:
    """Raise ModelError unless each row of [n, k] is a probability distribution; if multi-label, in 0..1."""
    if not np.isfinite(probabilities).all():
        raise ModelError(
            "the model's answers are not finite numbers: its fit diverged and needs a lower learning rate"
        )
    if np.any(probabilities < 0) or np.any(probabilities > 1 + tolerance):
        advice = (
            ": the last layer needs sigmoids"
            if task.is_multi_label
            else ', as logits do: say so by --output logits, or by output = "logits" in the card'
        )
        raise ModelError(f"the model's answers lie outside 0..1{advice}")
    if not task.is_multi_label and not np.allclose(probabilities.sum(axis=1), 1, atol=tolerance):
        raise ModelError(
            "the model's answers do not sum to 1: if a picture may have several labels, say so by --output "
            'multi-label, or by output = "multi-label" in the card; else the last layer needs a softmax'
        )


def format_shape(shape: Shape) -> str:
    """Return the shape of a batch for a message, such as "[n, 180, 180, 3]"."""
    return f"[{', '.join(['n', *('any' if size is None else str(size) for size in shape)])}]"


def _first_scaling_layer(model: keras.Model) -> keras.Layer | None:
    """Return the first layer, within nested models, too, that may change the range of the pixels."""
    for layer in model.layers:
        first = _first_scaling_layer(layer) if isinstance(layer, keras.Model) else layer
        is_skipped = isinstance(first, _KEEPS_RANGE) or type(first).__name__.startswith(_AUGMENTATIONS)
        if first is not None and not is_skipped:
            return first
    return None


def _input_for(model: keras.Model, task: TaskCard) -> tuple[int, ...]:
    """Return the shape, of one picture, in which the model takes the card's pictures.

    A trailing channel of 1 may be left out on either side, and channels may come first. A flat vector takes
    the pixels row by row.
    """
    accepted = input_shape(model)
    candidates = [task.instance_shape, task.shape, channels_first(task.shape), (math.prod(task.shape),)]
    if task.color == "grey":
        candidates += [task.shape[:2], (*task.shape[:2], 1)]
    for shape in candidates:
        if len(shape) == len(accepted) and all(
            size in (None, wanted) for size, wanted in zip(accepted, shape, strict=True)
        ):
            return shape
    raise ModelError(f"the model takes {format_shape(accepted)}, the card says {format_shape(task.shape)}")


def _check_output(spec: keras.KerasTensor, task: TaskCard, output: Output) -> None:
    """Raise ModelError unless the model answers numbers [n, k] or [n, 1, 1, k] that suit the card."""
    *inner, count = spec.shape[1:]
    if count is None or any(size != 1 for size in inner):
        raise ModelError(f"the model answers {format_shape(spec.shape[1:])}, not [n, classes]")
    if count == 1 and output in ("probabilities", "multi-label"):
        raise ModelError(
            'the model answers one value: with two labels, say --output sigmoid (output = "sigmoid" in the '
            'card) if it is the probability of the second, or --output logits (output = "logits")'
        )
    if output == "sigmoid" and count != 1:
        raise ModelError(f"the output sigmoid is one value, and the model answers {count}")
    if max(2, count) != len(task.labels):
        raise ModelError(f"the model answers {count} classes, and there are {len(task.labels)} labels")
    if "float" not in spec.dtype:
        raise ModelError(f"the model answers {spec.dtype}, not floating-point numbers")


def _select(outputs: Any, model: keras.Model, name: str | None) -> Any:
    """Return the output of a name, None for the only one, of a model's outputs in their structure."""
    if not isinstance(outputs, dict):
        # A Sequential has one output and no names.
        names = getattr(model, "output_names", [model.name])
        outputs = dict(zip(names, keras.tree.flatten(outputs), strict=True))
    known = ", ".join(outputs)
    if name is None and len(outputs) > 1:
        raise ModelError(f"the model has the outputs {known}: name that of the labels by --output-name")
    if name is not None and name not in outputs:
        raise ModelError(f"the model has no output {name!r}; its outputs: {known}")
    return outputs[name or next(iter(outputs))]
