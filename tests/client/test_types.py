"""Prediction: equality, hash, and immutability."""

import dataclasses

import pytest

from digit_client import Prediction

PREDICTION = Prediction(3, 0.75, (0.0, 0.0, 0.25, 0.75, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0), 1)


def test_prediction_equal_fields_are_equal_and_hash_alike() -> None:
    copy = dataclasses.replace(PREDICTION)
    assert copy == PREDICTION
    assert hash(copy) == hash(PREDICTION)
    assert dataclasses.replace(PREDICTION, model_version=2) != PREDICTION


def test_prediction_assignment_raises_frozen_instance_error() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PREDICTION.digit = 4  # type: ignore[misc]
