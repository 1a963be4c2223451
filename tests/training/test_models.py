"""Networks: architectures."""

import numpy as np
import pytest
from numpy.typing import NDArray

from digit_training import models
from digit_training.models import IS_DIGIT, PROBABILITIES
from tests.training.conftest import predict, predict_outputs


@pytest.fixture
def pixels() -> NDArray[np.float32]:
    """Random pixels: float32 [3, 784]."""
    return np.random.default_rng(0).random((3, 784), np.float32)


def test_perceptron_is_the_articles_network(pixels: NDArray[np.float32]) -> None:
    model = models.perceptron()
    assert model.count_params() == 7960
    assert [layer.activation.__name__ for layer in model.layers] == ["sigmoid", "softmax"]
    assert predict(model, pixels).shape == (3, 10)


def test_convnet_maps_pixels_to_probabilities_and_is_digit(pixels: NDArray[np.float32]) -> None:
    outputs = predict_outputs(models.convnet(), pixels)
    probabilities, is_digit = outputs[PROBABILITIES], outputs[IS_DIGIT]
    assert (probabilities.shape, is_digit.shape) == ((3, 10), (3,))
    assert probabilities.dtype == is_digit.dtype == np.float32
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert np.all((is_digit > 0) & (is_digit < 1))
