"""."""

import json
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from digit_training import export
from digit_training.data import Dataset
from digit_training.evaluation import evaluate
from digit_training.export import card
from digit_training.fit import Fit
from digit_training.recipes import QUICK


def test_the_signatures_are_those_of_the_contract(models: Path) -> None:
    signatures = tf.saved_model.load(str(models / "1")).signatures
    assert set(signatures) == {"serving_default", "images"}
    for name, key, spec in (
        ("serving_default", "pixels", tf.TensorSpec([None, 784], tf.float32, "pixels")),
        ("images", "images", tf.TensorSpec([None, 28, 28], tf.uint8, "images")),
    ):
        assert signatures[name].structured_input_signature == ((), {key: spec})
        answer = signatures[name].structured_outputs
        assert list(answer) == ["probabilities"]
        assert answer["probabilities"].shape.as_list() == [None, 10]
        assert answer["probabilities"].dtype == tf.float32


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_both_signatures_answer_as_the_keras_model(models: Path, dataset: Dataset, size: int) -> None:
    batch = dataset.test[:size]
    model = keras.saving.load_model(models.parent / "report" / "model.keras")
    expected = model.predict(batch.pixels, verbose=0)
    signatures = tf.saved_model.load(str(models / "1")).signatures
    pixels = signatures["serving_default"](pixels=tf.constant(batch.pixels))["probabilities"]
    images = signatures["images"](images=tf.constant(batch.images))["probabilities"]
    assert np.abs(pixels - expected).max() <= 1e-6
    assert np.abs(images - expected).max() <= 1e-6
    assert np.array_equal(pixels, images)


def test_the_weights_are_stored_once(fitted: Fit, tmp_path: Path) -> None:
    export.save(fitted.model, tmp_path)
    shapes = [shape for _, shape in tf.train.list_variables(str(tmp_path / "variables" / "variables"))]
    assert sum(int(np.prod(shape)) for shape in shapes if shape) == 7960


def test_the_published_model_answers_every_warmup_request(models: Path) -> None:
    version = models / "1"
    signatures = tf.saved_model.load(str(version)).signatures
    seen = set()
    for record in tf.data.TFRecordDataset(str(version / "assets.extra" / "tf_serving_warmup_requests")):
        request = PredictionLog.FromString(record.numpy()).predict_log.request
        name = request.model_spec.signature_name
        inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
        answer = signatures[name](**{key: tf.constant(value) for key, value in inputs.items()})
        assert request.model_spec.name == "digits"
        seen.add((name, len(answer["probabilities"])))
    assert seen == {("serving_default", 1), ("serving_default", 32), ("images", 1), ("images", 32)}


def test_it_says_what_the_model_is_and_how_it_came_to_be(fitted: Fit, dataset: Dataset) -> None:
    evaluation = evaluate(fitted.model, dataset.test)
    figures = card(fitted.model, dataset, evaluation, fitted)
    assert figures["model"] == "perceptron"
    assert figures["parameters"] == 7960
    assert figures["accuracy"] == evaluation.accuracy
    assert figures["calibration_error"] == evaluation.calibration_error
    assert figures["data"]["md5"] == dataset.md5
    assert figures["data"]["source"] == "here"
    assert not figures["data"]["canonical"]
    assert figures["versions"]["tensorflow"] == version("tensorflow")
    described = {key: figures["fit"][key] for key in ("seed", "epochs", "batch_size", "learning_rate")}
    assert described == {"seed": 0, "epochs": 3, "batch_size": 32, "learning_rate": 0.5}
    assert figures["fit"]["device"] == fitted.device
    assert figures["fit"]["temperature"] is None
    assert json.loads(json.dumps(figures)) == figures


def test_a_model_fitted_elsewhere_has_no_fit(fitted: Fit, dataset: Dataset) -> None:
    assert card(fitted.model, dataset, evaluate(fitted.model, dataset.test))["fit"] is None


def test_it_is_published_with_the_model(models: Path) -> None:
    figures = json.loads((models / "1" / "assets.extra" / "model.json").read_text())
    assert figures["model"] == "convnet"
    assert figures["accuracy"] > 0.85
    assert figures["fit"]["drawn"] == round(QUICK.drawn * figures["fit"]["examples"])
    assert 0.2 < figures["fit"]["temperature"] < 5
    assert 1 <= figures["fit"]["best_epoch"] <= figures["fit"]["epochs"] == 4
    assert figures["data"]["train"] == figures["fit"]["examples"] + figures["fit"]["validation_examples"]
