"""Published versions: answers and weights."""

from pathlib import Path

import numpy as np
import pytest

from digit_client.artifact.versions import Version
from digit_training import artifact, models
from digit_training.data import Dataset
from digit_training.errors import ModelError
from digit_training.fit import FitResult
from tests.training.conftest import predict, small_network


def test_predict_saved_model_answers_as_the_keras_model(
    published: Version, fitted: FitResult, dataset: Dataset
) -> None:
    expected = predict(fitted.model, dataset.test.pixels)
    images = dataset.test.images
    first, rest = artifact.predict_saved_model(published.path, images[:10], images[10:])
    answers = np.concatenate((first["probabilities"], rest["probabilities"]))
    assert np.abs(answers - expected).max() <= 1e-6


def test_predict_saved_model_in_empty_folder_raises_model_error(tmp_path: Path, dataset: Dataset) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        artifact.predict_saved_model(tmp_path, dataset.test.images)


def test_read_weights_are_those_of_the_fitted_network(published: Version, fitted: FitResult) -> None:
    weights = artifact.read_weights(published, models.perceptron())
    expected = fitted.model.get_weights()
    assert all(map(np.array_equal, weights, expected))
    assert len(weights) == len(expected)


def test_read_weights_of_another_architecture_raises_model_error(published: Version, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="1 is no small, so that its weights cannot start one"):
        artifact.read_weights(published, small_network())
    with pytest.raises(ModelError, match="cannot be loaded"):
        artifact.read_weights(Version("digits", 1, tmp_path), models.perceptron())
