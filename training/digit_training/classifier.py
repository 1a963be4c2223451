"""Classifiers to publish, checked against a task card.

A classifier is a Keras model that maps pixels float32 [n, *instance_shape] of its card to probabilities
float32 [n, k].
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from digit_core.artifact.task_card import TaskCard
from digit_core.artifact.verification import reason_of
from digit_training import models
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
    """Mean, subtracted from pixels in the card's range: one number, or one for each channel of the model."""
    std: tuple[float, ...] = ()
    """Divisor of the difference, in the same form."""
    is_bgr: bool = False
    """True if blue is the first channel."""


BATCH_SIZE = 500
"""Most pictures in a batch of a prediction."""

BATCH_VALUES = 500_000
"""Most values of pixels in a batch of a prediction, unless one picture has more."""

CHUNK_BATCHES = 25
"""Batches whose pixels are in memory as float32 at a time."""

_TOLERANCE = 1e-3
"""Largest distance from 1 of a sum of probabilities."""

_HALF_TOLERANCE = 2e-2
"""The same distance for 16-bit numbers; bfloat16 has 8 bits of precision."""

_MAX_CHANGE = 1e-4
"""Largest change of a probability between two calls: the rounding of float32 by kernels for other batches."""

_BATCHES = (2, 7, 32)
"""Sizes of the batches in which a probe is answered as alone."""

_AS_IN_SERVING = (
    "save it again with training=False (BatchNormalization, Dropout), without a layer that counts or draws "
    "at random, and without an operation over the axis of the batch (softmax, mean, boolean_mask)"
)
"""Way out for a model whose answer is no function of its picture."""

_BYTES = (0.0, 255.0)
_BYTES_ABOUT = (120, 300)
"""Bounds of the largest value that a Rescaling made for 0..255 suggests: 128 to 256."""
_DARK_BYTES = 80
"""Least value, two deviations above the mean, of pictures in 0..255, which may be dark."""

_ADAPTED = (_BYTES, (0.0, 16.0), (0.0, 100.0), (0.0, 65535.0))
"""Ranges to which a Normalization is adapted."""


def input_shape(model: keras.Model) -> Shape:
    """Return the shape of one picture. Raise ModelError if the model has several inputs or a fixed batch."""
    if len(model.inputs) != 1:
        raise ModelError(
            f"the model has {len(model.inputs)} inputs, not one: export a model of the picture alone, in "
            "which the others are constants"
        )
    batch, *shape = model.inputs[0].shape
    if batch is not None:
        raise ModelError(f"the model takes batches of {batch} only; build it without a batch size")
    dtype = model.inputs[0].dtype
    if not (keras.backend.is_float_dtype(dtype) or keras.backend.is_int_dtype(dtype)) or dtype == "int8":
        raise ModelError(
            f"the model takes {dtype}, not pixels: export the part of it that takes their numbers"
        )
    return tuple(shape)


def suggested_ranges(model: keras.Model) -> list[tuple[float, float]]:
    """Return the ranges of pixels that the model's type or first layers suggest, the likeliest first.

    Integers take 0..255. A Rescaling, or a Normalization adapted to pixels above 1, suggests a range; other
    layers without weights keep it.
    """
    if keras.backend.is_int_dtype(model.inputs[0].dtype):
        return [_BYTES]
    for layer in _layers(model):
        if isinstance(layer, layers.Rescaling):
            scale, offset = float(np.max(layer.scale)), float(np.min(layer.offset))
            if offset > 0 or scale <= 0:
                return []
            # Values from the offset to its opposite, or from 0 to 1.
            high = (-2 * offset or 1) / scale
            return [_BYTES if _BYTES_ABOUT[0] < high < _BYTES_ABOUT[1] else (0.0, high)]
        if isinstance(layer, layers.Normalization):
            # Pixels in 0..1 or -1..1 have means of at most 1.
            if (mean := float(np.max(layer.mean))) <= 1:
                return []
            high = mean + 2 * float(np.sqrt(np.max(layer.variance)))
            high = 255 if _DARK_BYTES < high < _BYTES_ABOUT[1] else high
            return sorted(_ADAPTED, key=lambda pixels: abs(math.log(pixels[1] / high)))
        if layer.weights:
            return []
    return []


def _layers(model: keras.Model) -> Iterator[keras.Layer]:
    """Yield the layers, those of nested models in their places."""
    for layer in model.layers:
        yield from _layers(layer) if isinstance(layer, keras.Model) else [layer]


def adapt(model: keras.Model, task: TaskCard, convention: Convention = Convention()) -> keras.Model:
    """Return a model that takes [n, *instance_shape] and shares the weights.

    It answers probabilities [n, k] of the labels, whatever the model's convention; the output of a
    multi-label card is "multi-label". Raise ModelError if input or output contradict the card, if the answers
    to black, white, colours and noise are not what the convention says, or if they depend on the pictures
    beside them. A dictionary of `probabilities` and `is_digit` [n, 1] is an output for the ten digits only.
    """
    is_half = bool({layer.compute_dtype for layer in _layers(model)} & {"float16", "bfloat16"})
    pictures = probes(task)
    try:
        adapted = raw = network(model, task, convention)
        if not models.has_is_digit(raw):
            answers = _to_probabilities(raw.output, convention.output)
            if is_half and not task.is_multi_label:
                answers = answers / keras.ops.sum(answers, axis=1, keepdims=True)
            adapted = keras.Model(raw.input, answers, name=model.name)
        found = predict(raw, pictures, task)[PROBABILITIES]
        _check_function(adapted, pictures, task, _HALF_TOLERANCE if is_half else _MAX_CHANGE)
    except ModelError:
        raise
    # Layers raise what they like, and TensorFlow does not document its exceptions for models that fail.
    except Exception as error:
        raise ModelError(f"the model fails to answer: {reason_of(error)}") from error
    if convention.output == "logits":
        _check_logits(found)
    else:
        found = np.concatenate([1 - found, found], axis=1) if convention.output == "sigmoid" else found
        check_probabilities(found, task, _HALF_TOLERANCE if is_half else _TOLERANCE)
    return adapted


def network(model: keras.Model, task: TaskCard, convention: Convention) -> keras.Model:
    """Return a model that takes [n, *instance_shape] and answers what the model itself does, float32 [n, k].

    The dictionary of `probabilities` and `is_digit` of the ten digits is kept. Raise ModelError if input or
    output contradict the card.
    """
    shape, dtype = _input_for(model, task), model.inputs[0].dtype
    outputs = model.compute_output_spec(model.inputs[0])
    refuses = (
        task.reads_numbers
        and isinstance(outputs, dict)
        and set(outputs) == {PROBABILITIES, IS_DIGIT}
        and outputs[IS_DIGIT].shape[1:] == (1,)
    )
    name = PROBABILITIES if refuses else convention.output_name
    _check_output(_select(outputs, model, name), task, convention.output)
    pixels = keras.Input(task.instance_shape, name="pixels")
    answers = model(_to_input(pixels, shape, dtype, convention))
    return keras.Model(pixels, answers if refuses else _flat(_select(answers, model, name)), name=model.name)


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
    return keras.ops.cast(keras.ops.round(values) if keras.backend.is_int_dtype(dtype) else values, dtype)


def _flat(answers: keras.KerasTensor) -> keras.KerasTensor:
    """Return what a model answers, [n, k] or [n, 1, 1, k], as float32 [n, k]."""
    answers = keras.ops.cast(answers, "float32")
    return layers.Reshape(answers.shape[-1:])(answers) if len(answers.shape) > 2 else answers


def probes(task: TaskCard) -> NDArray[np.uint8]:
    """Return pictures at which answers are extreme: black, white, each channel alone, and noise of two sizes.

    They are uint8 [n, *shape].
    """
    height, width, *rest = task.shape
    channels = rest[0] if rest else 1
    plain = np.concatenate([np.zeros((1, channels)), np.ones((1, channels)), np.eye(channels)]) * 255
    uniform = np.broadcast_to(plain[:, np.newaxis, np.newaxis], (len(plain), height, width, channels))
    fine = np.random.default_rng(0).integers(0, 256, (2, height, width, channels))
    coarse = fine[:, ::8, ::8].repeat(8, 1).repeat(8, 2)[:, :height, :width]
    probes = np.concatenate([uniform, fine, coarse]).astype(np.uint8)
    return probes.reshape(-1, *task.shape)


def _check_function(model: keras.Model, probes: NDArray[np.uint8], task: TaskCard, tolerance: float) -> None:
    """Raise ModelError unless an answer is a function of its picture, whatever the call and the batch.

    Each probe is asked alone, twice; noise, black and white are asked first, in the middle and last in larger
    batches of black and of white pictures, which are the first two probes.
    """

    def ask(rows: list[int]) -> NDArray[np.float32]:
        # Eager, since Model.predict would trace each size, and `predict` splits batches of large pictures.
        outputs = named_outputs(model, model(to_pixels(probes[rows], task), training=False))
        found = [keras.ops.convert_to_numpy(values) for values in outputs.values()]
        if any(len(values) != len(rows) for values in found):
            raise ModelError(
                f"the model gives {len(found[0])} rows for a batch of {len(rows)}: {_AS_IN_SERVING}"
            )
        return np.concatenate([values.reshape(len(rows), -1) for values in found], axis=1)

    def check(rows: list[int], words: str) -> None:
        change = float(np.nan_to_num(np.abs(ask(rows) - alone[rows])).max())
        if change > largest:
            raise ModelError(
                f"the model's answer to a picture changes by {change:.1g} {words}: {_AS_IN_SERVING}"
            )

    alone = np.concatenate([ask([row]) for row in range(len(probes))])
    # Rounding grows with the numbers, which may be percentages here.
    largest = tolerance * float(np.abs(alone[np.isfinite(alone)]).max(initial=1))
    for row in range(len(probes)):
        check([row], "from one call to the next")
    for size, filler, turn in itertools.product(_BATCHES, (0, 1), range(3)):
        rows = np.full(size, filler)
        rows[[0, size // 2, -1]] = np.roll([1 - filler, len(probes) - 3, len(probes) - 1], turn)
        beside = ("dark", "light")[filler]
        check(
            rows.tolist(), f"beside {beside} ones, and in the service other callers' pictures are beside it"
        )


def _to_probabilities(answers: keras.KerasTensor, output: Output) -> keras.KerasTensor:
    """Return probabilities [n, k] of what a model answers, [n, k]."""
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
    _check_finite(probabilities)
    if not task.is_multi_label:
        _check_sum(probabilities)
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


def _check_logits(answers: NDArray[np.float32]) -> None:
    """Raise ModelError if what the model answers, [n, k], are probabilities, or no finite numbers."""
    _check_finite(answers)
    _check_sum(answers)
    if np.all((answers >= 0) & (answers <= 1)):
        if answers.shape[1] == 1:
            raise ModelError(
                "the model answers between 0 and 1, as a sigmoid does: say --output sigmoid "
                '(output = "sigmoid" in the card), not logits'
            )
        if np.allclose(answers.sum(axis=1), 1, atol=_HALF_TOLERANCE):
            raise ModelError(
                "the model's answers are probabilities, which sum to 1, not logits: leave out "
                '--output logits (output = "logits" in the card)'
            )


def _check_sum(answers: NDArray[np.float32]) -> None:
    """Raise ModelError if answers [n, k] are probabilities times a number, as percentages are."""
    sums = answers.sum(axis=1)
    times = float(sums.mean())
    if answers.shape[1] > 1 and answers.min() >= 0 and times > 2 and np.ptp(sums) < _HALF_TOLERANCE * times:
        raise ModelError(
            f"the model's answers are probabilities times {times:.4g}: save keras.Model(model.inputs, "
            f"model.outputs[0] / {times:.4g})"
        )


def _check_finite(answers: NDArray[np.float32]) -> None:
    if not np.isfinite(answers).all():
        raise ModelError(
            "the model's answers are not finite numbers: its fit diverged and needs a lower learning rate"
        )


def format_shape(shape: Shape) -> str:
    """Return the shape of a batch for a message, such as "[n, 180, 180, 3]"."""
    return f"[{', '.join(['n', *('any' if size is None else str(size) for size in shape)])}]"


def _input_for(model: keras.Model, task: TaskCard) -> tuple[int, ...]:
    """Return the shape, of one picture, in which the model takes the card's pictures.

    A trailing channel of 1 may be left out on either side, and channels may come first. A flat vector takes
    the pixels row by row.
    """
    accepted = input_shape(model)
    candidates = [task.instance_shape, task.shape, channels_first(task.shape), (math.prod(task.shape),)]
    if task.prepare.color == "grey":
        candidates += [task.shape[:2], (*task.shape[:2], 1)]
    for shape in candidates:
        if len(shape) == len(accepted) and all(
            size in (None, wanted) for size, wanted in zip(accepted, shape, strict=True)
        ):
            return shape
    raise ModelError(
        f"the model takes {format_shape(accepted)}, but the card says {format_shape(task.shape)}"
    )


def _check_output(spec: keras.KerasTensor, task: TaskCard, output: Output) -> None:
    """Raise ModelError unless the model answers numbers [n, k] or [n, 1, 1, k] that suit the card."""
    shape = spec.shape[1:]
    if "float" not in spec.dtype:
        raise ModelError(
            f"the model answers {spec.dtype}, not probabilities: build it without its last step, such as "
            "argmax, and save that"
        )
    if not shape or shape[-1] is None or any(size != 1 for size in shape[:-1]):
        raise ModelError(
            f"the model answers {format_shape(shape)}, not [n, classes]: let it end in a layer that gives "
            "one number for each label, such as a Dense"
        )
    count = shape[-1]
    if count == 1 and output in ("probabilities", "multi-label"):
        raise ModelError(
            'the model answers one value: with two labels, say --output sigmoid (output = "sigmoid" in the '
            'card) if it is the probability of the second, or --output logits (output = "logits")'
        )
    if output == "sigmoid" and count != 1:
        raise ModelError(f"the output sigmoid is one value, but the model answers {count}")
    if max(2, count) != len(task.labels):
        raise ModelError(f"the model answers {count} classes, and there are {len(task.labels)} labels")


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
