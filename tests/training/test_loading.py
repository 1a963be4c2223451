"""Models of files: Keras files and SavedModels."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from digit_core.artifact.task_card import TaskCard
from digit_training import classifier, loading
from digit_training.errors import ModelError
from digit_training.models import PROBABILITIES
from tests.training.conftest import BYTES, COLORS, PIXELS, SCALED, linear_model, predict


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SavedModel with signatures that fit and that do not."""
    module = tf.Module()
    module.weights = tf.Variable(tf.random.stateless_uniform((3, 4), (0, 1)), name="a/weights")

    @tf.function  # type: ignore[untyped-decorator]
    def answer(x: tf.Tensor) -> dict[str, tf.Tensor]:
        means = tf.reduce_mean(tf.cast(x, tf.float32), axis=[1, 2])
        return {"scores": tf.nn.softmax(means @ module.weights)}

    types = {"serving_default": tf.float32, "bytes": tf.uint8, "wide": tf.int32}
    specs = {name: tf.TensorSpec([None, 64, 48, 3], dtype, "x") for name, dtype in types.items()}
    signatures = {name: answer.get_concrete_function(spec) for name, spec in specs.items()}
    folder = tmp_path_factory.mktemp("saved") / "ranked.v1"
    tf.saved_model.save(module, str(folder), signatures)
    return folder


@pytest.mark.parametrize(("signature", "task"), [("serving_default", COLORS), ("bytes", BYTES)])
def test_load_saved_model_answers_as_its_signature_and_has_its_weights(
    saved_model: Path, signature: str, task: TaskCard
) -> None:
    model = loading.load_saved_model(saved_model, signature)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 48, 3), np.uint8)
    inputs = images if task is BYTES else classifier.to_pixels(images, task)
    expected = tf.saved_model.load(str(saved_model)).signatures[signature](x=tf.constant(inputs))
    answers = classifier.predict(classifier.adapt(model, task), images, task)[PROBABILITIES]
    assert np.allclose(answers, expected["scores"], atol=1e-6)
    assert (model.name, model.count_params()) == ("ranked_v1", 12)


def test_load_saved_model_other_signatures_raise_model_error(saved_model: Path) -> None:
    with pytest.raises(ModelError, match="the signature 'wide' takes int32, not float32 or uint8"):
        loading.load_saved_model(saved_model, "wide")
    known = "signatures: bytes, serving_default, wide"
    with pytest.raises(ModelError, match=rf"no signature 'other' \(see --signature\); {known}"):
        loading.load_saved_model(saved_model, "other")


def test_load_missing_or_damaged_file_raises_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the folder is not a SavedModel: it has no saved_model\.pb"):
        loading.load_saved_model(tmp_path, "serving_default")
    (tmp_path / "saved_model.pb").write_bytes(b"no model")
    with pytest.raises(ModelError, match="TensorFlow cannot load the SavedModel: "):
        loading.load_saved_model(tmp_path, "serving_default")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model in each format, and of its weights."""
    folder, model = tmp_path_factory.mktemp("files"), linear_model((8, 8, 3), 4)
    for name in ("mine.keras", "mine.h5"):
        model.save(folder / name)
    model.save_weights(folder / "mine.weights.h5")
    return folder


AGAIN = r': copy it again, or save the model again by model\.save\("mine\.keras"\)'


# Keras warns that HDF5 is a legacy format.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [".keras", ".h5"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda *_: b"", f"the file is empty{AGAIN}"),
        (lambda kind, files: (files / f"mine{kind}").read_bytes()[:9000], f"is incomplete or damaged{AGAIN}"),
        (lambda *_: b"<html>404 Not Found", f"is not a Keras model, whatever its name says{AGAIN}"),
        (lambda _, files: (files / "mine.weights.h5").read_bytes(), "holds weights only: load them into"),
        (
            lambda kind, files: (files / f"mine{'.h5' if kind == '.keras' else '.keras'}").read_bytes(),
            "not of the kind that its name says: rename it to bad\\.",
        ),
    ],
    ids=["empty", "truncated", "text", "weights", "renamed"],
)
def test_load_keras_file_without_a_model_says_what_it_is(
    kind: str, content: Callable[[str, Path], bytes], message: str, files: Path, tmp_path: Path
) -> None:
    (tmp_path / f"bad{kind}").write_bytes(content(kind, files))
    with pytest.raises(ModelError, match=message):
        loading.load_keras(tmp_path / f"bad{kind}")


@pytest.mark.filterwarnings("ignore")
def test_load_keras_reads_legacy_h5(files: Path) -> None:
    pixels = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    one, other = (loading.load_keras(files / name) for name in ("mine.keras", "mine.h5"))
    assert np.array_equal(predict(one, pixels), predict(other, pixels))


def test_load_keras_frees_the_batch_size_of_a_sequential_that_was_built_by_a_call(tmp_path: Path) -> None:
    model = keras.Sequential([layers.Rescaling(1 / 255), layers.GlobalAveragePooling2D(), layers.Dense(4)])
    model(PIXELS)
    model.save(tmp_path / "called.keras")
    loaded = loading.load_keras(tmp_path / "called.keras")
    assert classifier.input_shape(loaded) == (64, 48, 3)
    assert np.array_equal(predict(loaded, PIXELS[:2]), predict(model, PIXELS[:2]))


def custom_layer() -> keras.Layer:
    class Halving(layers.Layer):  # type: ignore[misc]
        def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
            return inputs / 2

    return Halving()


@pytest.mark.parametrize("layer", [custom_layer(), layers.Lambda(lambda x: x * 2)], ids=["custom", "lambda"])
def test_load_keras_unknown_layer_says_what_to_do(layer: keras.Layer, tmp_path: Path) -> None:
    image = keras.Input((8, 8, 3))
    keras.Model(image, layers.Dense(4)(layers.Flatten()(layer(image)))).save(tmp_path / "model.keras")
    with pytest.raises(ModelError, match=r"--import MODULE; .* a SavedModel \(see docs/") as raised:
        loading.load_keras(tmp_path / "model.keras")
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
    model = loading.load_saved_model(tmp_path, "serving_default")
    expected = module.serving_default(tf.constant(SCALED))
    assert np.array_equal(predict(classifier.adapt(model, COLORS), SCALED), expected)


def test_load_keras_stateful_layer_says_that_it_needs_its_batch(tmp_path: Path) -> None:
    image = keras.Input(batch_shape=(4, 8, 8))
    keras.Model(image, layers.Dense(3)(layers.GRU(4, stateful=True)(image))).save(tmp_path / "gru.keras")
    with pytest.raises(ModelError, match=r"batch") as raised:
        classifier.adapt(loading.load_keras(tmp_path / "gru.keras"), COLORS)
    assert len(str(raised.value).splitlines()) == 1
