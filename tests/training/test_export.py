"""Artifact: signatures, weights, warm-up requests and the model card."""

import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from digit_core.artifact.task_card import DIGITS, CardInput, CardPreparation, TaskCard
from digit_core.artifact.versions import Version
from digit_training import export, models, provenance
from digit_training.classifier import Convention, adapt, to_pixels
from digit_training.data import Dataset
from digit_training.drawing.negatives import KINDS
from digit_training.errors import ModelError
from digit_training.evaluation import Evaluation, evaluate
from digit_training.export import model_card
from digit_training.fit import FitResult
from digit_training.recipes import QUICK
from tests.training.conftest import COLORS, predict_outputs, small_network

pytestmark = pytest.mark.xdist_group("fits")

UNEVEN = TaskCard("uneven", ("cat", "dog"), CardInput((32, 32), (-0.1, 0.3)))
PHOTOS = TaskCard(
    "photos", ("cat", "dog"), CardInput((300, 200, 3), (0.0, 255.0)), CardPreparation(fit="pad")
)


def unfitted_model(task: TaskCard) -> keras.Model:
    """Return a linear model of the task."""
    pixels = keras.Input(task.instance_shape)
    features = layers.Flatten()(pixels)
    return keras.Model(pixels, layers.Dense(len(task.labels), activation="softmax")(features))


@pytest.mark.parametrize("task", [DIGITS, COLORS], ids=lambda task: task.name)
def test_artifact_signatures_are_those_of_the_contract(task: TaskCard, tmp_path: Path) -> None:
    network = {"name": "linear", "accuracy": 0.5}
    export.save_model(unfitted_model(task), task, tmp_path / "1", network)
    signatures = tf.saved_model.load(str(tmp_path / "1")).signatures
    layers_of_digits = {"layers"} if task.kind == "digits" else set()
    assert set(signatures) == {"serving_default", "images", "card"} | layers_of_digits
    for name, key, spec in (
        ("serving_default", "pixels", tf.TensorSpec([None, *task.instance_shape], tf.float32, "pixels")),
        ("images", "images", tf.TensorSpec([None, *task.shape], tf.uint8, "images")),
    ):
        assert signatures[name].structured_input_signature == ((), {key: spec})
        outputs = signatures[name].structured_outputs
        assert list(outputs) == ["probabilities"]
        assert outputs["probabilities"].shape.as_list() == [None, len(task.labels)]
        assert outputs["probabilities"].dtype == tf.float32
    card = signatures["card"]
    assert card.structured_input_signature == ((), {"unused": tf.TensorSpec([None], tf.uint8, "unused")})
    outputs = card(unused=tf.zeros([2], tf.uint8))
    documents = [json.loads(document) for document in outputs["card"].numpy().tolist()]
    assert [TaskCard.from_document(document) for document in documents] == [task] * 2
    assert json.loads(outputs["network"].numpy()[1]) == network


@pytest.mark.parametrize("network", [models.perceptron, models.convnet])
def test_signature_layers_gives_what_each_activation_function_gives(
    network: Callable[[], keras.Model], tmp_path: Path
) -> None:
    model = network()
    export.save_model(model, DIGITS, tmp_path / "1")
    signatures = tf.saved_model.load(str(tmp_path / "1")).signatures
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (2, 28, 28), np.uint8))
    activations = signatures["layers"](images=images)
    probabilities = signatures["images"](images=images)["probabilities"]
    names = sorted(activations)
    if model.name == "perceptron":
        assert names == ["00_Dense", "00_Dense_weights", "01_Dense"]
        assert np.array_equal(
            activations["00_Dense_weights"].numpy().reshape(2, 784, 10), [model.layers[0].kernel] * 2
        )
        assert np.array_equal(activations["01_Dense"], probabilities)
    else:
        assert names[:5] == [f"0{place}_Conv2D" for place in range(4)] + ["04_Dense"]
        assert activations["00_Conv2D"].shape == (2, 14, 14, 32)
        assert {name[3:] for name in names[5:]} == {"probabilities", "is_digit"}


def test_signature_layers_of_exported_model_looks_into_nested_models(tmp_path: Path) -> None:
    inner = keras.Sequential([keras.Input((784,)), layers.Dense(12, activation="relu")])
    pixels = keras.Input((28, 28, 1))
    model = keras.Model(pixels, layers.Dense(10)(inner(layers.Flatten()(pixels))))
    export.save_model(adapt(model, DIGITS, Convention("logits")), DIGITS, tmp_path / "1")
    signatures = tf.saved_model.load(str(tmp_path / "1")).signatures
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (2, 28, 28), np.uint8))
    activations = signatures["layers"](images=images)
    assert sorted(activations) == ["00_Dense", "00_Dense_weights", "01_Softmax"]
    assert np.allclose(
        activations["00_Dense"], inner(np.reshape(images, (2, 784)) / np.float32(255)), atol=1e-5
    )
    assert np.array_equal(activations["01_Softmax"], signatures["images"](images=images)["probabilities"])


@pytest.mark.parametrize("task", [DIGITS, COLORS, PHOTOS, UNEVEN], ids=lambda task: task.name)
def test_artifact_scales_images_as_numpy_does(task: TaskCard, tmp_path: Path) -> None:
    pixels = keras.Input(task.instance_shape)
    # A model that answers its input: the first pixels, as if they were probabilities.
    export.save_model(keras.Model(pixels, layers.Flatten()(pixels)), task, tmp_path / "1")
    images = np.random.default_rng(0).integers(0, 256, (3, *task.shape), np.uint8)
    outputs = tf.saved_model.load(str(tmp_path / "1")).signatures["images"](images=tf.constant(images))
    scaled = to_pixels(images, task)
    assert scaled.dtype == np.float32
    assert np.array_equal(outputs["probabilities"], scaled.reshape(3, -1))
    low, high = task.range
    assert np.allclose(scaled, low + images.reshape(scaled.shape) / 255 * (high - low), atol=1e-4)


@pytest.mark.parametrize(("task", "sizes"), [(DIGITS, {1, 32}), (PHOTOS, {1, 5})], ids=["digits", "photos"])
def test_write_warmup_requests_bounds_their_size(task: TaskCard, sizes: set[int], tmp_path: Path) -> None:
    images = np.zeros((40, *task.shape), np.uint8)
    export.write_warmup_requests(tmp_path / "requests", export.warmup_requests(task, images))
    requests = [
        PredictionLog.FromString(record.numpy()).predict_log.request
        for record in tf.data.TFRecordDataset(str(tmp_path / "requests"))
    ]
    assert {request.model_spec.name for request in requests} == {task.name}
    shapes = {
        (request.model_spec.signature_name, tuple(tf.make_ndarray(tensor).shape))
        for request in requests
        for tensor in request.inputs.values()
    }
    assert shapes == {("images", (size, *task.shape)) for size in sizes} | {
        ("serving_default", (size, *task.instance_shape)) for size in sizes
    }


@pytest.mark.parametrize("name", ["fitted", "refusing"])
def test_artifact_answers_as_the_keras_model(
    name: str, dataset: Dataset, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model: keras.Model = request.getfixturevalue(name).model
    export.save_model(model, DIGITS, tmp_path / "1")
    signatures = tf.saved_model.load(str(tmp_path / "1")).signatures
    for batch in (dataset.test[:1], dataset.test):
        expected = predict_outputs(model, batch.pixels)
        pixels = signatures["serving_default"](pixels=tf.constant(batch.pixels))
        images = signatures["images"](images=tf.constant(batch.images))
        assert set(pixels) == set(images) == set(expected)
        for key, values in expected.items():
            assert (pixels[key].shape, pixels[key].dtype) == (values.shape, tf.float32)
            assert np.abs(pixels[key] - values).max() <= 1e-6
            assert np.array_equal(pixels[key], images[key])


def test_artifact_stores_the_weights_once(published: Version) -> None:
    variables = str(published.path / "variables" / "variables")
    shapes = [shape for _, shape in tf.train.list_variables(variables)]
    assert sum(int(np.prod(shape)) for shape in shapes if shape) == 7960


def test_read_weights_are_those_of_a_network_of_the_same_architecture(
    published: Version, fitted: FitResult, tmp_path: Path
) -> None:
    weights = export.read_weights(published, models.perceptron())
    for actual, expected in zip(weights, fitted.model.get_weights(), strict=True):
        assert np.array_equal(actual, expected)
    with pytest.raises(ModelError, match="1 is no small, so that its weights cannot start one"):
        export.read_weights(published, small_network())
    with pytest.raises(ModelError, match="cannot be loaded"):
        export.read_weights(Version("digits", 1, tmp_path), models.perceptron())


def test_model_card_states_figures_data_fit_and_versions(fitted: FitResult, dataset: Dataset) -> None:
    evaluation = evaluate(fitted.model, dataset.test, DIGITS)
    card = model_card(fitted.model, DIGITS, dataset.describe(), evaluation, fitted)
    assert (card["model"], card["parameters"], card["is_digit"]) == ("perceptron", 7960, None)
    assert card["accuracy"] == evaluation.accuracy
    assert card["calibration_error"] == evaluation.calibration_error
    assert (card["data"]["md5"], card["data"]["canonical"]) == (dataset.md5, False)
    assert card["source"] == provenance.describe()
    assert card["versions"]["tensorflow"] == tf.__version__
    known = {"seed": 0, "epochs": 3, "batch_size": 32, "learning_rate": 0.5, "temperature": None}
    assert card["fit"] == card["fit"] | known | {"device": fitted.device}
    assert json.loads(json.dumps(card)) == card


def test_model_card_of_two_outputs_states_threshold_refusals_and_the_calibrated_fit(
    refusing: FitResult, refusing_evaluation: Evaluation, dataset: Dataset
) -> None:
    card = model_card(refusing.model, DIGITS, dataset.describe(), refusing_evaluation, refusing)
    is_digit, refusals = card["is_digit"], refusing_evaluation.refusals
    assert refusing.threshold
    assert refusals
    assert is_digit["threshold"] == refusing.threshold.value
    assert is_digit["chosen_on"]["refused"] <= is_digit["chosen_on"]["max_refused"] == 0.005
    assert is_digit["chosen_on"]["readable_digits"] == refusing.threshold.readable_digits
    assert is_digit["refused_digits"] == refusals.digits.refused_share
    kinds = is_digit["refused_negatives"] | is_digit["refused_held_out_negatives"]
    assert kinds == {name: scored.refused_share for name, scored in refusals.negatives.items()}
    assert set(is_digit["refused_held_out_negatives"]) == {
        name for name, kind in KINDS.items() if kind.is_held_out
    }
    fit = card["fit"]
    assert fit["negative_examples"] == refusing.negative_examples
    assert fit["synthetic_examples"] == round(QUICK.synthetic_fraction * fit["examples"])
    assert fit["examples"] + fit["validation_examples"] == 600
    assert 0.2 <= fit["temperature"] <= 5
    assert 1 <= fit["best_epoch"] <= fit["epochs"] == 4
    assert json.loads(json.dumps(card)) == card
    # A model that was fitted elsewhere has a threshold that nobody knows.
    elsewhere = model_card(refusing.model, DIGITS, dataset.describe(), refusing_evaluation)["is_digit"]
    assert (elsewhere["threshold"], elsewhere["chosen_on"]) == (None, None)
