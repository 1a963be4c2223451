from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from digit_training import saved_model
from digit_training.dataset import Dataset
from digit_training.fit import Fit


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
    saved_model.save(fitted.model, tmp_path)
    shapes = [shape for _, shape in tf.train.list_variables(str(tmp_path / "variables" / "variables"))]
    assert sum(int(np.prod(shape)) for shape in shapes if shape) == 7960
