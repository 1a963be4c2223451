import keras
import numpy as np
import pytest
from keras import layers

from digit_training.dataset import Dataset
from digit_training.errors import ModelError
from digit_training.evaluate import calibration_error, evaluate
from digit_training.fit import Fit


def test_accuracy_counts_the_right_answers(fitted: Fit, dataset: Dataset) -> None:
    evaluation = evaluate(fitted.model, dataset.test)
    answers = fitted.model.predict(dataset.test.pixels, verbose=0).argmax(axis=1)
    assert evaluation.accuracy == pytest.approx(np.mean(answers == dataset.test.labels))
    assert evaluation.probabilities.shape == (1000, 10)
    assert 0 < evaluation.calibration_error < 1


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    confidence = np.array([0.9, 0.9, 0.5, 1.0], np.float32)
    right = np.array([True, False, True, True])
    # 0.9 and 0.9 are half right: a gap of 0.4 for two of four; 0.5 is right: 0.5 for one; 1.0 is right: none.
    assert calibration_error(confidence, right) == pytest.approx((2 * 0.4 + 0.5) / 4)


def test_honest_confidence_has_no_calibration_error() -> None:
    right = np.arange(100) < 70
    assert calibration_error(np.full(100, 0.7, np.float32), right) == pytest.approx(0, abs=1e-6)


def test_logits_are_refused(dataset: Dataset) -> None:
    model = keras.Sequential([keras.Input((784,)), layers.Dense(10)])
    with pytest.raises(ModelError, match="end it with a softmax"):
        evaluate(model, dataset.test)


def test_a_fit_that_diverged_is_refused(dataset: Dataset) -> None:
    bias = keras.initializers.Constant(float("nan"))
    model = keras.Sequential([keras.Input((784,)), layers.Dense(10, "softmax", bias_initializer=bias)])
    with pytest.raises(ModelError, match="its fit diverged"):
        evaluate(model, dataset.test)
