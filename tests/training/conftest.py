"""Fixtures of the training tests: digits as arrays and files, fitted models and a published artifact."""

import gzip
import os
import struct
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops
from numpy.typing import NDArray

from digit_training import data, export, models, registry
from digit_training.data import Dataset
from digit_training.evaluation import Evaluation, evaluate
from digit_training.fit import FitResult, fit
from digit_training.models import IS_DIGIT, PROBABILITIES
from digit_training.recipes import QUICK, RECIPES
from tests.conftest import Digits


def encode_idx(array: NDArray[np.uint8]) -> bytes:
    """Return the content of an IDX file with this array."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def predict(model: keras.Model, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the model's probabilities, computed eagerly: Model.predict would compile each model."""
    return predict_outputs(model, inputs)[PROBABILITIES]


def predict_outputs(model: keras.Model, inputs: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Return `probabilities` [n, 10] and, from a network with two outputs, `is_digit` [n]."""
    outputs = models.named_outputs(model, model(inputs, training=False))
    return {name: np.asarray(ops.convert_to_numpy(values)) for name, values in outputs.items()}


def small_network() -> keras.Model:
    """Return a network with two outputs that is fitted in seconds."""
    pixels = keras.Input((784,), name="pixels")
    features = layers.Dense(64, activation="relu")(pixels)
    outputs = {
        PROBABILITIES: layers.Dense(10, activation="softmax", name=PROBABILITIES)(features),
        IS_DIGIT: layers.Dense(1, activation="sigmoid", name=IS_DIGIT)(features),
    }
    return keras.Model(pixels, outputs, name="small")


@pytest.fixture(scope="session")
def dataset(mnist_npz: Path) -> Dataset:
    """4,000 training and 1,000 test digits."""
    return data.read(mnist_npz).validate("sample")


@pytest.fixture(scope="session")
def mnist() -> Dataset:
    """MNIST, or the bundled sample if MNIST cannot be downloaded."""
    path = os.environ.get("DIGITS_MNIST")
    return data.load(Path(path) if path else None)


@pytest.fixture(scope="session")
def fitted(dataset: Dataset) -> FitResult:
    """Perceptron after three epochs with a high learning rate."""
    recipe = replace(RECIPES["perceptron"], epochs=3, learning_rate=0.5)
    return fit(recipe, dataset.train, seed=0)


@pytest.fixture(scope="session")
def calibrated(dataset: Dataset) -> FitResult:
    """Perceptron after two epochs of 240 digits, fitted and calibrated by the convnet's quick recipe."""
    return fit(replace(QUICK, build=models.perceptron).with_epochs(2), dataset.train[:240], seed=1)


@pytest.fixture(scope="session")
def refusing(dataset: Dataset) -> FitResult:
    """Small network with two outputs after three epochs of 600 digits, fitted by the quick recipe."""
    return fit(replace(QUICK, build=small_network).with_epochs(3), dataset.train[:600], seed=1)


@pytest.fixture(scope="session")
def refusing_evaluation(refusing: FitResult, dataset: Dataset) -> Evaluation:
    """Evaluation of the small network with two outputs on the test digits."""
    return evaluate(refusing.model, dataset.test)


@pytest.fixture(scope="session")
def published(fitted: FitResult, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifact of the fitted perceptron, published as version 1."""
    card = export.model_card(fitted.model, dataset, evaluate(fitted.model, dataset.test), fitted)
    return registry.publish(
        tmp_path_factory.mktemp("published"),
        lambda directory: export.write_artifact(fitted.model, card, dataset.test, directory),
    )


@pytest.fixture
def idx_folder(digits: Digits, tmp_path: Path) -> Path:
    """Folder of IDX files: 200 training digits, gzipped, and 100 test digits."""
    images, labels = digits.images, digits.labels
    for name, array in (
        ("train-images-idx3-ubyte.gz", images[:200]),
        ("train-labels-idx1-ubyte.gz", labels[:200]),
        ("t10k-images-idx3-ubyte", images[200:300]),
        ("t10k-labels-idx1-ubyte", labels[200:300]),
    ):
        content = encode_idx(array)
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return tmp_path
