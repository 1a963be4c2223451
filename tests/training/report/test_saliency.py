"""Saliency maps of the perceptron."""

import keras
import numpy as np
import pytest
from keras import layers

from digit_training import models
from digit_training.data import Dataset, Examples
from digit_training.fit import FitResult
from digit_training.report.saliency import saliency_maps
from tests.training.conftest import predict


def test_saliency_maps_of_one_connected_pixel_mark_only_that_pixel(dataset: Dataset) -> None:
    # One pixel drives one hidden unit, which raises the score of 3 and lowers that of 8.
    model = models.perceptron()
    first, bias, second, last = (np.zeros_like(weights) for weights in model.get_weights())
    first[14 * 28 + 10, 5], second[5, 3], second[5, 8] = 2.0, 1.0, -1.0
    model.set_weights([first, bias, second, last])
    values = saliency_maps(model, dataset.test)
    assert values is not None
    assert values.shape == (10, 28, 28)
    assert values[3, 14, 10] > 0 > values[8, 14, 10]
    assert values[3, 14, 10] == pytest.approx(-values[8, 14, 10])
    assert np.count_nonzero(values) == 2


def test_saliency_maps_equal_the_finite_differences_of_the_scores(
    fitted: FitResult, dataset: Dataset
) -> None:
    values = saliency_maps(fitted.model, dataset.test)
    assert values is not None
    pixels, spread, step = dataset.test.pixels, dataset.test.pixels.std(axis=0), 1e-2

    def scores(pixels: np.ndarray) -> np.ndarray:
        logits = np.log(predict(fitted.model, pixels).astype(float)).mean(axis=0)
        return np.asarray(logits - logits.mean())

    for pixel in (14 * 28 + 14, 8 * 28 + 16):
        change = np.zeros(784, np.float32)
        change[pixel] = step * spread[pixel]
        slope = (scores(pixels + change) - scores(pixels - change)) / (2 * step)
        assert slope == pytest.approx(values.reshape(10, 784)[:, pixel], rel=0.02, abs=1e-3)


def test_saliency_maps_of_a_pixel_without_ink_are_0(fitted: FitResult, dataset: Dataset) -> None:
    images = dataset.test.images.copy()
    images[:, 14, 14] = 0
    values = saliency_maps(fitted.model, Examples(images, dataset.test.labels))
    assert values is not None
    assert not values[:, 14, 14].any()
    assert values[:, 13, 14].all()


@pytest.mark.parametrize(
    "model",
    [
        models.convnet(),
        keras.Sequential([keras.Input((784,)), layers.Dense(10, "relu"), layers.Dense(10, "softmax")]),
        keras.Sequential([keras.Input((784,)), layers.Dense(10, "softmax")]),
    ],
    ids=["convnet", "relu", "no hidden layer"],
)
def test_saliency_maps_of_other_networks_are_none(model: keras.Model, dataset: Dataset) -> None:
    assert saliency_maps(model, dataset.test[:10]) is None
