"""Classifiers: loading, checks against a task card, and adaption to its input."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from numpy.typing import NDArray

from digit_core.artifact.task_card import DIGITS, CardInput, TaskCard
from digit_training import classifier, loading
from digit_training.classifier import Convention
from digit_training.errors import ModelError
from digit_training.models import IS_DIGIT, PROBABILITIES
from tests.training.conftest import (
    BYTES,
    COLORS,
    PIXELS,
    SCALED,
    linear_model,
    predict,
    predict_outputs,
    small_network,
)

GREY = TaskCard("grey", tuple("abcdefghij"), CardInput((28, 28), (0.0, 1.0)))


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.float32]:
    return np.random.default_rng(0).random((3, 784), np.float32)


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 1), (None, None, 1), (784,)])
def test_adapt_model_with_or_without_grey_channel_takes_pictures_of_the_card(
    shape: tuple[int | None, ...], pixels: NDArray[np.float32]
) -> None:
    model = linear_model(shape, 10)
    accepted = shape if None not in shape else (28, 28, 1)
    expected = predict(model, pixels.reshape(3, *accepted))
    for task in (DIGITS, GREY, replace(GREY, input=replace(GREY.input, shape=(28, 28, 1)))):
        adapted = classifier.adapt(model, task)
        assert adapted.name == "linear"
        assert np.array_equal(predict(adapted, pixels.reshape(3, *task.instance_shape)), expected)


def test_adapt_keeps_is_digit_of_the_ten_digits(pixels: NDArray[np.float32]) -> None:
    small = small_network()
    image = keras.Input((28, 28))
    model = keras.Model(image, small(layers.Flatten()(image)))
    actual, expected = (predict_outputs(one, pixels) for one in (classifier.adapt(model, DIGITS), small))
    assert all(np.array_equal(actual[name], expected[name]) for name in (PROBABILITIES, IS_DIGIT))
    letters = replace(DIGITS, labels=tuple("abcdefghij"))
    with pytest.raises(ModelError, match="the model has the outputs probabilities, is_digit: name"):
        classifier.adapt(small, letters)


def test_adapt_logits_answers_their_softmax() -> None:
    model = linear_model((64, 48, 3), 4, "linear")
    answers = predict(classifier.adapt(model, COLORS, Convention("logits")), SCALED)
    assert np.allclose(answers, tf.nn.softmax(predict(model, SCALED)), atol=1e-6)


@pytest.mark.parametrize(("activation", "output"), [("sigmoid", "sigmoid"), ("linear", "logits")])
def test_adapt_one_value_answers_two_labels(activation: str, output: classifier.Output) -> None:
    task = replace(COLORS, labels=("day", "night"))
    model = linear_model((64, 48, 3), 1, activation)
    answers = predict(classifier.adapt(model, task, Convention(output)), SCALED)
    second = predict(model, SCALED) if output == "sigmoid" else tf.sigmoid(predict(model, SCALED))
    assert np.allclose(answers, np.concatenate([1 - second, second], axis=1), atol=1e-6)


def test_adapt_multi_label_answers_a_probability_of_each_label() -> None:
    task = replace(COLORS, threshold=(0.5,) * 4)
    model = linear_model((64, 48, 3), 4, "sigmoid")
    convention = Convention("multi-label")
    assert np.array_equal(predict(classifier.adapt(model, task, convention), SCALED), predict(model, SCALED))
    with pytest.raises(ModelError, match=r"lie outside 0\.\.1: the last layer needs sigmoids"):
        classifier.adapt(linear_model((64, 48, 3), 4, "linear"), task, convention)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float64", "int32"])
def test_adapt_input_of_another_type_answers_alike(dtype: str) -> None:
    model = linear_model((64, 48, 3), 4)
    image = keras.Input((64, 48, 3), dtype=dtype)
    typed = keras.Model(image, model(layers.Rescaling(1 / 255, dtype="float32")(image)))
    assert classifier.suggested_ranges(typed) == [(0, 255)]
    answers = predict(classifier.adapt(typed, BYTES), PIXELS)
    assert np.allclose(answers, predict(model, SCALED), atol=1e-6)


@pytest.mark.parametrize(
    ("activation", "output", "message"),
    [
        ("softmax", "logits", r"are probabilities, which sum to 1, not logits: leave out --output logits"),
        ("sigmoid", "logits", r"answers between 0 and 1, as a sigmoid does: say --output sigmoid"),
        ("linear", "sigmoid", r"lie outside 0\.\.1, as logits do: say so by --output logits"),
    ],
)
def test_adapt_output_that_the_network_contradicts_raises_model_error(
    activation: str, output: classifier.Output, message: str
) -> None:
    """Grey pictures, and so noise, have logits in 0..1; black and white have not."""
    dense = layers.Dense(3 if activation == "softmax" else 1, activation=activation)
    image = keras.Input((64, 48, 3))
    model = keras.Model(image, dense(layers.GlobalAveragePooling2D()(image)))
    signs = np.linspace(-1, 1, dense.units) if dense.units > 1 else np.ones(1)
    dense.set_weights([np.tile(signs, (3, 1)), -signs])
    assert 0 < float(dense(np.full((1, 3), 0.5, np.float32))[0, -1]) < 1
    labels = tuple("abc"[: max(2, dense.units)])
    task = replace(COLORS, labels=labels, input=CardInput(COLORS.shape, (0.0, 1.0)))
    with pytest.raises(ModelError, match=message):
        classifier.adapt(model, task, Convention(output))


@pytest.mark.parametrize("output", ["probabilities", "logits"])
@pytest.mark.parametrize("times", [10, 100])
def test_adapt_probabilities_times_a_number_says_how_to_divide_them(times: int, output: Any) -> None:
    model = linear_model((64, 48, 3), 4)
    percent = keras.Model(model.input, model.output * times)
    with pytest.raises(
        ModelError, match=rf"are probabilities times {times}: .*outputs\[0\] / {times}\)"
    ) as raised:
        classifier.adapt(percent, COLORS, Convention(output))
    assert "--output logits, " not in str(raised.value)
    divided = keras.Model(percent.inputs, percent.outputs[0] / times)
    assert np.allclose(predict(classifier.adapt(divided, COLORS), SCALED), predict(model, SCALED), atol=1e-6)


def unsuitable_models() -> Iterator[tuple[keras.Model, TaskCard, str]]:
    """Yield models and cards that do not suit, each with the reason."""
    color = (64, 48, 3)
    yield linear_model((48, 64, 3), 4), COLORS, r"takes \[n, 48, 64, 3\], but the card says \[n, 64, 48, 3\]"
    yield linear_model((783,), 10), GREY, r"takes \[n, 783\], but the card says \[n, 28, 28\]"
    yield linear_model((None, None, 3), 10), GREY, r"\[n, any, any, 3\], but the card says \[n, 28, 28\]"
    yield linear_model(color, 3), COLORS, "the model answers 3 classes, and there are 4 labels"
    yield linear_model(color, 1), COLORS, "answers one value: with two labels, say --output sigmoid"
    yield linear_model(color, 4, "sigmoid"), COLORS, "do not sum to 1: if a picture may have several labels"
    yield linear_model(color, 4, "linear"), COLORS, r"outside 0\.\.1, as logits do: say so by --output logits"
    mean, softmax = layers.GlobalAveragePooling2D(), layers.Dense(4, activation="softmax")
    image, other = keras.Input(color), keras.Input(color)
    two = keras.Model([image, other], softmax(mean(layers.Add()([image, other]))))
    yield two, COLORS, "the model has 2 inputs, not one: export a model of the picture alone"
    answers = softmax(mean(image))
    yield keras.Model(image, [answers, answers * 2]), COLORS, "name that of the labels by --output-name"
    no_argmax = "answers int32, not probabilities: build it without its last step, such as argmax"
    yield keras.Model(image, keras.ops.cast(answers, "int32")), COLORS, no_argmax
    yield keras.Model(image, keras.ops.argmax(answers, axis=1)), COLORS, no_argmax
    yield keras.Model(image, keras.ops.max(answers, axis=1)), COLORS, r"answers \[n\], not .*: let it end in"
    yield keras.Model(image, softmax(image)), COLORS, r"answers \[n, 64, 48, 4\], not \[n, classes\]"
    batch = keras.Input(batch_shape=(8, *color))
    yield keras.Model(batch, softmax(mean(batch))), COLORS, "the model takes batches of 8 only"
    words = keras.Input((), dtype="string")
    hashed = layers.CategoryEncoding(9, "one_hot")(layers.Hashing(9)(words))
    model = keras.Model(words, layers.Dense(4)(hashed))
    yield model, COLORS, "takes string, not pixels: export the part of it"


def test_adapt_unsuitable_inputs_and_outputs_raise_model_error() -> None:
    for model, task, message in unsuitable_models():
        with pytest.raises(ModelError, match=message):
            classifier.adapt(model, task)


BATCH_NORM = layers.BatchNormalization()


@pytest.mark.parametrize(
    "answer",
    [
        lambda scores: ops.softmax(scores, axis=0),
        lambda scores: ops.softmax(scores - ops.mean(scores, axis=0)),
        lambda scores: ops.softmax(BATCH_NORM(scores, training=True)),
        lambda scores: tf.boolean_mask(tf.nn.softmax(scores), tf.reduce_max(tf.abs(scores), axis=1) > 1e-3),
    ],
    ids=["softmax", "mean", "training-mode", "fewer-rows"],
)
@pytest.mark.filterwarnings("ignore:You are using a softmax over axis 0")
def test_adapt_answers_that_depend_on_the_pictures_beside_them_raise_model_error(answer: Any) -> None:
    image = keras.Input((64, 48, 3))
    scores = layers.Dense(4, use_bias=False)(layers.GlobalAveragePooling2D()(image))
    task = replace(COLORS, input=CardInput(COLORS.shape, (0.0, 1.0)))
    depends = "changes by .* beside dark ones, and in the service other|gives 0 rows for a batch of 1"
    with pytest.raises(ModelError, match=f"({depends}).*: save it again with training=False"):
        classifier.adapt(keras.Model(image, layers.Lambda(answer)(scores)), task)


class Counting(layers.Layer):  # type: ignore[misc]
    """Layer that multiplies by the number of its calls."""

    def build(self, _shape: Any) -> None:
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, inputs: Any) -> Any:
        self.calls.assign_add(1.0)
        return inputs * self.calls


def test_adapt_answers_that_depend_on_the_call_raise_model_error(tmp_path: Path) -> None:
    image = keras.Input((64, 48, 3))
    scores = layers.Dense(4)(layers.GlobalAveragePooling2D()(image))
    counting = keras.Model(image, layers.Softmax()(Counting()(scores)))
    with pytest.raises(ModelError, match=r"changes by .* from one call to the next: .*that counts or draws"):
        classifier.adapt(counting, COLORS)
    dropping = keras.Sequential([keras.Model(image, scores), layers.Dropout(0.5), layers.Softmax()])

    @tf.function(input_signature=[tf.TensorSpec([None, 64, 48, 3], tf.float32)])  # type: ignore[untyped-decorator]
    def serve(pixels: tf.Tensor) -> tf.Tensor:
        return dropping(pixels, training=True)

    module = tf.Module()
    module.weights = [*dropping.variables, *(weight.value for weight in dropping.weights)]
    tf.saved_model.save(module, str(tmp_path), {"serving_default": serve})
    with pytest.raises(ModelError, match=r"changes by .* from one call to the next: save it again with tr"):
        classifier.adapt(loading.load_saved_model(tmp_path, "serving_default"), COLORS)


@pytest.mark.parametrize("layer", [layers.BatchNormalization(), layers.Dropout(0.5)])
def test_adapt_layers_that_differ_in_training_are_called_as_in_serving(layer: keras.Layer) -> None:
    image = keras.Input((64, 48, 3))
    features = layer(layers.GlobalAveragePooling2D()(image), training=True)
    classifier.adapt(keras.Model(image, layers.Dense(4, activation="softmax")(features)), COLORS)


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_adapt_other_precision_answers_float32_that_sum_to_1(dtype: str) -> None:
    image = keras.Input((64, 48, 3))
    features = layers.GlobalAveragePooling2D()(layers.Rescaling(1 / 255)(image))
    model = keras.Model(image, layers.Dense(4, activation="softmax", dtype=dtype)(features))
    answers = predict(classifier.adapt(model, BYTES), PIXELS)
    assert answers.dtype == np.float32
    assert np.allclose(answers.sum(axis=1), 1, atol=1e-6)
    assert np.abs(answers - tf.cast(model(PIXELS), tf.float32)).max() < 0.01


def test_adapt_channels_first_takes_channels_last() -> None:
    model = linear_model((3, 64, 48), 4)
    answers = predict(classifier.adapt(model, COLORS), SCALED)
    assert np.array_equal(answers, predict(model, SCALED.transpose(0, 3, 1, 2)))


def test_adapt_takes_one_of_several_outputs_and_drops_axes_of_1() -> None:
    image = keras.Input((64, 48, 3))
    pooled = layers.GlobalAveragePooling2D(keepdims=True)(layers.Rescaling(1 / 255)(image))
    kind = layers.Conv2D(4, 1, activation="softmax", name="kind")(pooled)
    box = layers.Dense(4)(pooled)
    for outputs in ([box, kind], {"box": box, "kind": kind}, {"kind": kind}):
        model = keras.Model(image, outputs)
        answers = predict(classifier.adapt(model, BYTES, Convention(output_name="kind")), PIXELS)
        assert np.array_equal(answers, np.asarray(keras.Model(image, kind)(PIXELS))[:, 0, 0])
        with pytest.raises(ModelError, match=r"no output 'class'; its outputs: .*kind"):
            classifier.adapt(model, BYTES, Convention(output_name="class"))


def test_adapt_subtracts_the_mean_and_divides_in_the_order_of_the_channels() -> None:
    mean, std = (103.9, 116.8, 123.7), (58.0, 57.0, 56.0)
    image = keras.Input((64, 48, 3))
    model = keras.Model(image, layers.Dense(4, activation="softmax")(layers.GlobalAveragePooling2D()(image)))
    adapted = classifier.adapt(model, BYTES, Convention(mean=mean, std=std, is_bgr=True))
    prepared = (PIXELS[..., ::-1] - np.array(mean, np.float32)) / np.array(std, np.float32)
    expected = predict(model, np.asarray(prepared, np.float32))
    assert np.allclose(predict(adapted, PIXELS), expected, atol=1e-6)


def test_suggested_ranges_are_those_of_the_first_layer_that_scales() -> None:
    def suggested(*first: keras.Layer) -> list[tuple[float, float]]:
        model = keras.Sequential([keras.Input((8, 8, 3)), *first, layers.Flatten()])
        return classifier.suggested_ranges(model)

    def begins_with(*first: keras.Layer) -> bool:
        return suggested(*first)[:1] == [(0, 255)]

    assert begins_with(layers.RandomFlip("horizontal"), layers.Resizing(4, 4), layers.Rescaling(1 / 255))
    assert begins_with(layers.Permute((3, 1, 2)), layers.Rescaling(1 / 255))
    assert begins_with(keras.Sequential([layers.RandomZoom(0.1), layers.Normalization(mean=110, variance=9)]))
    assert begins_with(layers.Rescaling(1 / (255 * 0.2), offset=-2))
    assert not begins_with(layers.Rescaling(0.5, offset=0.5))
    assert not begins_with(layers.Normalization())
    assert not begins_with(layers.Conv2D(3, 3), layers.Rescaling(1 / 255))
    assert not begins_with(layers.Reshape((8, 8, 3)))
    for high in (1, 16, 100, 65_535):
        assert suggested(layers.Rescaling(1 / high))[0][1] == pytest.approx(high)
        assert suggested(layers.Rescaling(2 / high, offset=-1))[0][1] == pytest.approx(high)
    assert begins_with(layers.Rescaling(1 / 128, offset=-1))
    assert suggested(layers.Normalization(mean=4.9, variance=36))[0] == (0, 16)
    assert suggested(layers.Normalization(mean=30_000, variance=2e8))[0] == (0, 65_535)


@pytest.mark.parametrize(("scale", "expected"), [(255, True), (1, False)])
def test_suggested_ranges_of_normalization_depend_on_the_data_that_it_was_adapted_to(
    scale: float, expected: bool, tmp_path: Path
) -> None:
    normalization = layers.Normalization()
    normalization.adapt(scale * np.random.default_rng(0).random((20, 8, 8, 3), np.float32))
    keras.Sequential([keras.Input((8, 8, 3)), normalization]).save(tmp_path / "model.keras")
    suggested = classifier.suggested_ranges(loading.load_keras(tmp_path / "model.keras"))
    assert (suggested[:1] == [(0, 255)]) == expected


def test_predict_in_batches_answers_as_in_one(colors_model: keras.Model) -> None:
    images = np.random.default_rng(0).integers(0, 256, (1400, 64, 48, 3), np.uint8)
    assert classifier.CHUNK_BATCHES * classifier.batch_size(images) < len(images)
    answers = classifier.predict(colors_model, images, COLORS)[PROBABILITIES]
    expected = predict(colors_model, classifier.to_pixels(images, COLORS))
    assert np.allclose(answers, expected, atol=1e-6)
