"""Training-serving skew: pictures as Keras's loader prepares them."""

import re
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
from keras import layers
from PIL import ExifTags, Image

from digit_core.artifact.task_card import CardInput, TaskCard
from digit_training import pictures, skew
from digit_training.classifier import predict
from digit_training.models import PROBABILITIES
from tests.training.conftest import COLORS


def differences(model: keras.Model, folder: Path, task: TaskCard) -> list[str]:
    """Return the counts of other answers, each with the entry of a card that changes them."""
    loaded = pictures.load(folder, task)
    answers = predict(model, loaded.examples.images, task)[PROBABILITIES]
    found = [
        re.search(r"\((\w+) = .*so, (\d+ of \d+)", sentence)
        for sentence in skew.describe_other_answers(model, loaded, answers)
    ]
    return [f"{match[1]}: {match[2]}" for match in found if match]


def light_or_dark() -> keras.Model:
    """Return a model that answers 1 for pictures, [n, 8, 8, 3], with a mean above 0.5."""
    image = keras.Input((8, 8, 3))
    mean = layers.GlobalAveragePooling2D()(image)
    dense = layers.Dense(2, activation="softmax")
    model = keras.Model(image, dense(mean))
    dense.set_weights([np.array([[-10, 10]] * 3, np.float32), np.array([15, -15], np.float32)])
    return model


def test_differences_smooth_pictures_have_the_same_answers(
    colors_model: keras.Model, colors_folder: Path
) -> None:
    for fit in ("stretch", "crop"):
        task = replace(COLORS, prepare=replace(COLORS.prepare, fit=fit))
        assert differences(colors_model, colors_folder, task) == []


def test_differences_fine_patterns_have_other_answers(tmp_path: Path) -> None:
    """Each eighth column is white: the loader's interpolation picks columns, serving averages them."""
    for name in ("dark", "light"):
        (tmp_path / name).mkdir()
        stripes = np.zeros((64, 64, 3), np.uint8)
        # Bilinear interpolation of 8 to 1 reads the columns 3 and 4 of each eight.
        stripes[:, 3::8] = stripes[:, 4::8] = 255
        for number in range(40):
            Image.fromarray(stripes).save(tmp_path / name / f"{number}.png")
    task = TaskCard("stripes", ("dark", "light"), CardInput((8, 8, 3), (0.0, 1.0)))
    assert differences(light_or_dark(), tmp_path, task) == ["interpolation: 40 of 40"]


def test_differences_names_transparency_and_orientation_but_not_the_interpolation(tmp_path: Path) -> None:
    """Transparent black is white in serving; the turned picture keeps its mean."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for name in ("dark", "light"):
        (tmp_path / name).mkdir()
        for number in range(5):
            Image.new("RGBA", (8, 8)).save(tmp_path / name / f"{number}.png")
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"turned{number}.jpg", exif=exif)
    task = TaskCard("stripes", ("dark", "light"), CardInput((8, 8, 3), (0.0, 1.0)))
    assert differences(light_or_dark(), tmp_path, task) == ["alpha: 10 of 20"]
    top = keras.Input((8, 8, 3))
    model = keras.Model(top, light_or_dark()(layers.ZeroPadding2D(((0, 4), (0, 0)))(top[:, :4]) * 2))
    half = np.zeros((8, 8, 3), np.uint8)
    half[:4] = 255
    for file in tmp_path.glob("*/*.png"):
        file.unlink()
    for file in tmp_path.glob("*/*.jpg"):
        Image.fromarray(half).save(file, exif=exif, quality=95)
    assert differences(model, tmp_path, task) == ["exif: 10 of 10"]


def test_differences_of_other_data_compares_nothing(tmp_path: Path, colors_model: keras.Model) -> None:
    np.savez(tmp_path / "test.npz", x_test=np.zeros((4, 64, 48, 3), np.uint8), y_test=np.arange(4))
    assert differences(colors_model, tmp_path / "test.npz", COLORS) == []
