"""Classifiers: loading, checks against a task card, and adaption to its input."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

from digit_core.artifact.task_card import DIGITS, TaskCard
from digit_training import classifier
from digit_training.classifier import Convention
from digit_training.errors import ModelError
from digit_training.models import IS_DIGIT, PROBABILITIES
from tests.training.conftest import COLORS, predict, predict_outputs, small_network

GREY = TaskCard("grey", tuple("abcdefghij"), (28, 28), (0.0, 1.0))
BYTES = replace(COLORS, range=(0.0, 255.0))


def linear_model(shape: tuple[int | None, ...], classes: int, activation: str = "softmax") -> keras.Model:
    image = keras.Input(shape)
    features = layers.GlobalAveragePooling2D()(image) if None in shape else layers.Flatten()(image)
    return keras.Model(image, layers.Dense(classes, activation=activation)(features), name="linear")


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
    for task in (DIGITS, GREY, replace(GREY, shape=(28, 28, 1))):
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


PIXELS = np.random.default_rng(0).integers(0, 256, (3, 64, 48, 3)).astype(np.float32)
SCALED = PIXELS / np.float32(255)


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
    task = replace(COLORS, thresholds=(0.5,) * 4)
    model = linear_model((64, 48, 3), 4, "sigmoid")
    convention = Convention("multi-label")
    assert np.array_equal(predict(classifier.adapt(model, task, convention), SCALED), predict(model, SCALED))
    with pytest.raises(ModelError, match=r"lie outside 0\.\.1: the last layer needs sigmoids"):
        classifier.adapt(linear_model((64, 48, 3), 4, "linear"), task, convention)


def test_adapt_uint8_input_gets_bytes() -> None:
    image = keras.Input((64, 48, 3), dtype="uint8")
    features = layers.GlobalAveragePooling2D()(layers.Rescaling(1 / 255)(image))
    model = keras.Model(image, layers.Dense(4, activation="softmax")(features))
    assert classifier.takes_bytes(model)
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 48, 3), np.uint8)
    answers = classifier.predict(classifier.adapt(model, BYTES), images, BYTES)[PROBABILITIES]
    assert np.allclose(answers, model.predict(images, verbose=0), atol=1e-6)


def unsuitable_models() -> Iterator[tuple[keras.Model, TaskCard, str]]:
    """Yield models and cards that do not suit, each with the reason."""
    color = (64, 48, 3)
    yield linear_model((48, 64, 3), 4), COLORS, r"takes \[n, 48, 64, 3\], the card says \[n, 64, 48, 3\]"
    yield linear_model((783,), 10), GREY, r"takes \[n, 783\], the card says \[n, 28, 28\]"
    yield linear_model((None, None, 3), 10), GREY, r"\[n, any, any, 3\], the card says \[n, 28, 28\]"
    yield linear_model(color, 3), COLORS, "the model answers 3 classes, and there are 4 labels"
    yield linear_model(color, 1), COLORS, "answers one value: with two labels, say --output sigmoid"
    yield linear_model(color, 4, "sigmoid"), COLORS, "do not sum to 1: if a picture may have several labels"
    yield linear_model(color, 4, "linear"), COLORS, r"outside 0\.\.1, as logits do: say so by --output logits"
    mean, softmax = layers.GlobalAveragePooling2D(), layers.Dense(4, activation="softmax")
    image, other = keras.Input(color), keras.Input(color)
    two = keras.Model([image, other], softmax(mean(layers.Add()([image, other]))))
    yield two, COLORS, "the model has 2 inputs, not one"
    answers = softmax(mean(image))
    yield keras.Model(image, [answers, answers * 2]), COLORS, "name that of the labels by --output-name"
    yield keras.Model(image, keras.ops.cast(answers, "int32")), COLORS, "answers int32, not floating-point"
    yield keras.Model(image, softmax(image)), COLORS, r"answers \[n, 64, 48, 4\], not \[n, classes\]"
    batch = keras.Input(batch_shape=(8, *color))
    yield keras.Model(batch, softmax(mean(batch))), COLORS, "the model takes batches of 8 only"
    numbers = keras.Input(color, dtype="int32")
    scaled = layers.Rescaling(1 / 255)(numbers)
    yield keras.Model(numbers, softmax(mean(scaled))), COLORS, "takes int32, not float32 or uint8"


def test_adapt_unsuitable_inputs_and_outputs_raise_model_error() -> None:
    for model, task, message in unsuitable_models():
        with pytest.raises(ModelError, match=message):
            classifier.adapt(model, task)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
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


def test_takes_bytes_sees_the_first_layer_that_scales() -> None:
    def begins_with(*first: keras.Layer) -> bool:
        return classifier.takes_bytes(keras.Sequential([keras.Input((8, 8, 3)), *first, layers.Flatten()]))

    assert begins_with(layers.Rescaling(1 / 127.5, offset=-1))
    assert begins_with(layers.RandomFlip("horizontal"), layers.Resizing(4, 4), layers.Rescaling(1 / 255))
    assert begins_with(layers.Permute((3, 1, 2)), layers.RandomErasing(), layers.Rescaling(1 / 255))
    assert begins_with(keras.Sequential([layers.RandomZoom(0.1), layers.Normalization(mean=110, variance=9)]))
    assert not begins_with(layers.Rescaling(255))
    assert not begins_with(layers.Normalization())
    assert not begins_with(layers.Conv2D(3, 3), layers.Rescaling(1 / 255))
    assert not begins_with(layers.Reshape((8, 8, 3)))


# TensorFlow 2.20's variables lack an argument of __array__ that NumPy 2 passes when Keras saves them.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(("scale", "expected"), [(255, True), (1, False)])
def test_takes_bytes_of_normalization_depends_on_the_data_that_it_was_adapted_to(
    scale: float, expected: bool, tmp_path: Path
) -> None:
    normalization = layers.Normalization()
    normalization.adapt(scale * np.random.default_rng(0).random((20, 8, 8, 3), np.float32))
    keras.Sequential([keras.Input((8, 8, 3)), normalization]).save(tmp_path / "model.keras")
    assert classifier.takes_bytes(classifier.load_keras(tmp_path / "model.keras")) == expected


def test_predict_in_batches_answers_as_in_one(colors_model: keras.Model) -> None:
    images = np.random.default_rng(0).integers(0, 256, (1400, 64, 48, 3), np.uint8)
    assert classifier.CHUNK_BATCHES * classifier.batch_size(images) < len(images)
    answers = classifier.predict(colors_model, images, COLORS)[PROBABILITIES]
    expected = predict(colors_model, classifier.to_pixels(images, COLORS))
    assert np.allclose(answers, expected, atol=1e-6)


class Ranked(tf.Module):  # type: ignore[misc]
    """SavedModel with signatures that fit and that do not."""

    def __init__(self) -> None:
        self.weights = tf.Variable(tf.random.stateless_uniform((3, 4), (0, 1)), name="a/weights")

    def save(self, folder: Path) -> None:
        def signature(dtype: tf.DType, *shape: int | None) -> tf.TensorSpec:
            return tf.TensorSpec([None, *shape], dtype, "x")

        @tf.function  # type: ignore[untyped-decorator]
        def answer(x: tf.Tensor) -> dict[str, tf.Tensor]:
            means = tf.reduce_mean(tf.cast(x, tf.float32), axis=[1, 2])
            return {"scores": tf.nn.softmax(means @ self.weights)}

        @tf.function  # type: ignore[untyped-decorator]
        def answer_twice(x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"one": answer(x)["scores"], "two": answer(x)["scores"]}

        fitting = signature(tf.float32, 64, 48, 3)
        signatures = {
            "serving_default": answer.get_concrete_function(fitting),
            "bytes": answer.get_concrete_function(signature(tf.uint8, 64, 48, 3)),
            "twice": answer_twice.get_concrete_function(fitting),
            "wide": answer.get_concrete_function(signature(tf.int32, 64, 48, 3)),
        }
        tf.saved_model.save(self, str(folder), signatures)


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "ranked.v1"
    Ranked().save(folder)
    return folder


@pytest.mark.parametrize(("signature", "task"), [("serving_default", COLORS), ("bytes", BYTES)])
def test_load_saved_model_answers_as_its_signature_and_has_its_weights(
    saved_model: Path, signature: str, task: TaskCard
) -> None:
    model = classifier.load_saved_model(saved_model, signature)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 48, 3), np.uint8)
    inputs = images if task is BYTES else classifier.to_pixels(images, task)
    expected = tf.saved_model.load(str(saved_model)).signatures[signature](x=tf.constant(inputs))
    answers = classifier.predict(classifier.adapt(model, task), images, task)[PROBABILITIES]
    assert np.allclose(answers, expected["scores"], atol=1e-6)
    assert (model.name, model.count_params()) == ("ranked_v1", 12)


def test_load_saved_model_other_signatures_raise_model_error(saved_model: Path) -> None:
    with pytest.raises(ModelError, match="the signature 'wide' takes int32, not float32 or uint8"):
        classifier.load_saved_model(saved_model, "wide")
    known = "signatures: bytes, serving_default, twice, wide"
    with pytest.raises(ModelError, match=rf"no signature 'other' \(see --signature\); {known}"):
        classifier.load_saved_model(saved_model, "other")


def test_load_saved_model_of_several_outputs_answers_the_one_that_is_named(saved_model: Path) -> None:
    model = classifier.load_saved_model(saved_model, "twice")
    answers = predict(classifier.adapt(model, COLORS, Convention(output_name="two")), SCALED)
    expected = classifier.load_saved_model(saved_model, "serving_default")(SCALED)["scores"]
    assert np.allclose(answers, expected, atol=1e-6)


def test_load_missing_or_damaged_file_raises_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"not a SavedModel: the folder has no saved_model\.pb"):
        classifier.load_saved_model(tmp_path, "serving_default")
    (tmp_path / "saved_model.pb").write_bytes(b"no model")
    with pytest.raises(ModelError, match="not a SavedModel that TensorFlow can load"):
        classifier.load_saved_model(tmp_path, "serving_default")
    (tmp_path / "damaged.keras").write_bytes(b"no model")
    with pytest.raises(ModelError, match="not a model that Keras can load"):
        classifier.load_keras(tmp_path / "damaged.keras")


# Keras warns that HDF5 is a legacy format.
@pytest.mark.filterwarnings("ignore")
def test_load_keras_reads_legacy_h5(tmp_path: Path) -> None:
    model = linear_model((8, 8, 3), 4)
    model.save(tmp_path / "model.h5")
    pixels = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    loaded = classifier.load_keras(tmp_path / "model.h5")
    assert np.array_equal(predict(loaded, pixels), predict(model, pixels))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_load_keras_frees_the_batch_size_of_a_sequential_that_was_built_by_a_call(tmp_path: Path) -> None:
    model = keras.Sequential([layers.Rescaling(1 / 255), layers.GlobalAveragePooling2D(), layers.Dense(4)])
    model(PIXELS)
    model.save(tmp_path / "called.keras")
    loaded = classifier.load_keras(tmp_path / "called.keras")
    assert classifier.input_shape(loaded) == (64, 48, 3)
    assert np.array_equal(predict(loaded, PIXELS[:2]), predict(model, PIXELS[:2]))


def custom_layer() -> keras.Layer:
    class Halving(layers.Layer):  # type: ignore[misc]
        def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
            return inputs / 2

    return Halving()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("layer", [custom_layer(), layers.Lambda(lambda x: x * 2)], ids=["custom", "lambda"])
def test_load_keras_unknown_layer_says_what_to_do(layer: keras.Layer, tmp_path: Path) -> None:
    image = keras.Input((8, 8, 3))
    keras.Model(image, layers.Dense(4)(layers.Flatten()(layer(image)))).save(tmp_path / "model.keras")
    with pytest.raises(ModelError, match=r"--import MODULE; .* a SavedModel \(see docs/") as raised:
        classifier.load_keras(tmp_path / "model.keras")
    assert len(str(raised.value).splitlines()) == 1
    assert "Full object config" not in str(raised.value)


def test_load_saved_model_whose_signature_is_an_attribute_too(tmp_path: Path) -> None:
    # onnx2tf writes such SavedModels.
    class Both(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec([None, 64, 48, 3], tf.float32)])  # type: ignore[untyped-decorator]
        def serving_default(self, x: tf.Tensor) -> tf.Tensor:
            return tf.nn.softmax(tf.reduce_mean(x, axis=[1, 2]) @ tf.eye(3, 4))

    module = Both()
    tf.saved_model.save(module, str(tmp_path), signatures=module.serving_default)
    model = classifier.load_saved_model(tmp_path, "serving_default")
    expected = module.serving_default(tf.constant(SCALED))
    assert np.array_equal(predict(classifier.adapt(model, COLORS), SCALED), expected)
