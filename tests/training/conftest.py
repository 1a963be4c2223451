"""Fixtures of the training tests: digits and pictures of other tasks, fitted models, a published artifact.

Modules that use the fitted models are of the group `fits`, so that one worker of pytest-xdist fits them.
"""

import gzip
import json
import os
import struct
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import keras
import numpy as np
import pytest
from keras import layers, ops
from numpy.typing import NDArray
from PIL import Image

from digit_core import images
from digit_core.artifact.models_folder import ModelsFolder
from digit_core.artifact.task_card import DIGITS, CardInput, TaskCard
from digit_core.artifact.versions import Version
from digit_training import data, export, models
from digit_training.data import Dataset
from digit_training.evaluation import Evaluation, evaluate
from digit_training.fit import FitResult, TrainingData, fit
from digit_training.models import IS_DIGIT, PROBABILITIES
from digit_training.reader import crops
from digit_training.reader.pages import Page
from digit_training.recipes import QUICK, RECIPES
from tests.conftest import Digits


def encode_idx(array: NDArray[np.integer[Any]]) -> bytes:
    """Return the content of an IDX file with this array."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def predict(model: keras.Model, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the model's probabilities, computed eagerly: Model.predict would compile each model."""
    return predict_outputs(model, inputs)[PROBABILITIES]


def predict_outputs(model: keras.Model, inputs: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Return `probabilities` [n, 10] and, from a network with two outputs, `is_digit` [n]."""
    outputs = models.named_outputs(model, model(inputs, training=False))
    return {name: np.asarray(ops.convert_to_numpy(values)) for name, values in outputs.items()}


COLORS = TaskCard("colors", ("red", "green", "blue", "grey"), CardInput((64, 48, 3), (-1.0, 1.0)))
BYTES = replace(COLORS, input=replace(COLORS.input, range=(0.0, 255.0)))
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 64, 48, 3)).astype(np.float32)
SCALED = PIXELS / np.float32(255)
COLORS_TOML = """
name = "colors"
labels = ["red", "green", "blue", "grey"]
[input]
range = [-1, 1]
"""


def draw_color(label: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a noisy picture in one of the colours of COLORS: uint8 [h, w, 3] of a random size."""
    height, width = rng.integers(70, 160, 2)
    picture = np.full((height, width, 3), rng.integers(60, 120), float)
    if label < 3:
        picture[:, :, label] += 100
    return np.clip(picture + rng.normal(0, 20, (height, width, 1)), 0, 255).astype(np.uint8)


def linear_model(shape: tuple[int | None, ...], classes: int, activation: str = "softmax") -> keras.Model:
    """Return a network of one layer, for pictures of any size if the shape has a None."""
    image = keras.Input(shape)
    features = layers.GlobalAveragePooling2D()(image) if None in shape else layers.Flatten()(image)
    return keras.Model(image, layers.Dense(classes, activation=activation)(features), name="linear")


def small_network() -> keras.Model:
    """Return a network with two outputs that is fitted in seconds."""
    pixels = keras.Input((784,), name="pixels")
    features = layers.Dense(64, activation="relu")(pixels)
    outputs = {
        PROBABILITIES: layers.Dense(10, activation="softmax", name=PROBABILITIES)(features),
        IS_DIGIT: layers.Dense(1, activation="sigmoid", name=IS_DIGIT)(features),
    }
    return keras.Model(pixels, outputs, name="small")


def written_page(*written: tuple[int, tuple[float, float, float, float]]) -> Page:
    """Return a blank page on which digits and signs are noted, each with its box."""
    boxes = np.array([box for _, box in written], np.float32).reshape(-1, 4)
    return Page(np.full((96, 192), 200, np.uint8), boxes, np.array([label for label, _ in written], np.int64))


def write_version(card: dict[str, Any], folder: Path) -> None:
    """Write a version with this model card, which no server could load."""
    for name in ("variables/variables.index", "variables/variables.data-00000-of-00001", "saved_model.pb"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra" / "model.json").write_text(json.dumps(card))


@pytest.fixture(scope="session")
def dataset(mnist_npz: Path) -> Dataset:
    """4,000 training and 1,000 test digits."""
    return data.load(mnist_npz)


@pytest.fixture(scope="session")
def mnist() -> Dataset:
    """MNIST, or the bundled sample if MNIST cannot be downloaded."""
    path = os.environ.get("DIGITS_MNIST")
    return data.load(Path(path) if path else None)


@pytest.fixture(scope="session")
def fitted(dataset: Dataset) -> FitResult:
    """Perceptron after three epochs with a high learning rate."""
    recipe = replace(RECIPES["perceptron"], epochs=3, learning_rate=0.5)
    return fit(recipe, TrainingData(dataset.train, crops), seed=0)


@pytest.fixture(scope="session")
def calibrated(dataset: Dataset) -> FitResult:
    """Perceptron after two epochs of 240 digits, fitted and calibrated by the convnet's quick recipe."""
    recipe = replace(QUICK, build=models.perceptron).with_changes(epochs=2)
    return fit(recipe, TrainingData(dataset.train[:240], crops), seed=1)


@pytest.fixture(scope="session")
def refusing(dataset: Dataset) -> FitResult:
    """Small network with two outputs after four epochs of 600 digits, fitted by the quick recipe."""
    recipe = replace(QUICK, build=small_network).with_changes(epochs=4)
    return fit(recipe, TrainingData(dataset.train[:600], crops), seed=1)


@pytest.fixture(scope="session")
def refusing_evaluation(refusing: FitResult, dataset: Dataset) -> Evaluation:
    """Evaluation of the small network with two outputs on the test digits."""
    return evaluate(refusing.model, dataset.test, DIGITS)


@pytest.fixture(scope="session")
def colors_model() -> keras.Model:
    """Model of COLORS, which answers nearly all of its pictures correctly."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 4
    pixels = np.stack([images.prepare(draw_color(label, rng), COLORS) for label in labels.tolist()])
    model = keras.Sequential(
        [keras.Input((64, 48, 3)), layers.GlobalAveragePooling2D(), layers.Dense(4, activation="softmax")],
        name="averages",
    )
    model.compile(keras.optimizers.Adam(0.3), "sparse_categorical_crossentropy")
    model.fit(pixels / np.float32(127.5) - 1, labels, batch_size=200, epochs=40, verbose=0)
    return model


@pytest.fixture(scope="session")
def colors_file(colors_model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keras file of the model of COLORS."""
    file = tmp_path_factory.mktemp("colors") / "colors.keras"
    colors_model.save(file)
    return file


@pytest.fixture
def colors_folder(tmp_path: Path) -> Path:
    """Folder of test pictures with a folder for each label of COLORS; five JPEG files in each."""
    rng = np.random.default_rng(1)
    for label, name in enumerate(COLORS.labels):
        (tmp_path / "validation" / name).mkdir(parents=True)
        for number in range(5):
            picture = Image.fromarray(draw_color(label, rng))
            picture.save(tmp_path / "validation" / name / f"{number}.jpg")
    return tmp_path / "validation"


@pytest.fixture
def digits_folder(digits: Digits, tmp_path: Path) -> Path:
    """Folder with a folder for each digit, 0 to 9, of six pictures; one has a text, too."""
    for label in range(10):
        (tmp_path / "own" / str(label)).mkdir(parents=True)
        for number, image in enumerate(digits.typical(label, 6)):
            Image.fromarray(255 - image).save(tmp_path / "own" / str(label) / f"{number}.png")
    (tmp_path / "own" / "3" / "notes.txt").write_text("no picture")
    return tmp_path / "own"


@pytest.fixture(scope="session")
def published(fitted: FitResult, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Version:
    """Artifact of the fitted perceptron, published as version 1."""
    evaluation = evaluate(fitted.model, dataset.test, DIGITS)
    card = export.model_card(fitted.model, DIGITS, dataset.describe(), evaluation, fitted)
    write = partial(export.write_artifact, fitted.model, DIGITS, card, dataset.test.images)
    return ModelsFolder(tmp_path_factory.mktemp("models"), verify=Mock()).publish("digits", write)


@pytest.fixture
def idx_folder(digits: Digits, tmp_path: Path) -> Path:
    """Folder of IDX files: 200 training digits, gzipped, and 100 test digits."""
    pixels, labels = digits.images, digits.labels
    for name, array in (
        ("train-images-idx3-ubyte.gz", pixels[:200]),
        ("train-labels-idx1-ubyte.gz", labels[:200]),
        ("t10k-images-idx3-ubyte", pixels[200:300]),
        ("t10k-labels-idx1-ubyte", labels[200:300]),
    ):
        content = encode_idx(array)
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return tmp_path
