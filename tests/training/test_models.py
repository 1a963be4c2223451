"""Networks: architectures, ensembles and input adaptation."""

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from digit_training import models
from digit_training.models import IS_DIGIT, PROBABILITIES
from tests.training.conftest import predict, predict_outputs, small_network


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


@pytest.mark.parametrize("build", [models.perceptron, models.convnet])
def test_ensemble_answers_with_the_softmax_of_mean_logits(
    build: type[keras.Model], pixels: NDArray[np.float32]
) -> None:
    members = [build() for _ in range(3)]
    expected = np.exp(np.mean([np.log(predict(member, pixels)) for member in members], axis=0))
    ensemble = models.ensemble(members)
    assert np.allclose(predict(ensemble, pixels), expected / expected.sum(axis=1, keepdims=True), atol=1e-6)
    outputs = 11 if models.has_is_digit(ensemble) else 10
    assert ensemble.count_params() == sum(member.count_params() for member in members) - 2 * outputs


def test_ensemble_is_digit_is_the_sigmoid_of_mean_logits(pixels: NDArray[np.float32]) -> None:
    members = [small_network() for _ in range(3)]
    for number, member in enumerate(members):
        member.get_layer(IS_DIGIT).bias.assign([float(number)])
    answers = np.array([predict_outputs(member, pixels)[IS_DIGIT] for member in members])
    expected = 1 / (1 + np.exp(-np.log(answers / (1 - answers)).mean(axis=0)))
    assert np.allclose(predict_outputs(models.ensemble(members), pixels)[IS_DIGIT], expected, atol=1e-6)
