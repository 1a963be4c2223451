import numpy as np
import pytest
from numpy.typing import NDArray

from digit_training import calibration
from digit_training.dataset import Dataset
from digit_training.evaluate import evaluate
from digit_training.fit import fit
from digit_training.recipes import RECIPES


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def honest(examples: int) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Logits, and labels that were drawn with the probabilities that they give."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((examples, 10))
    labels = (softmax(logits).cumsum(axis=1) > rng.random((examples, 1))).argmax(axis=1)
    return logits, labels.astype(np.uint8)


@pytest.mark.parametrize("heat", [0.5, 1.0, 3.0])
def test_it_finds_how_much_too_sure_a_model_is(heat: float) -> None:
    logits, labels = honest(20_000)
    assert calibration.temperature(softmax(logits * heat), labels) == pytest.approx(heat, rel=0.03)


def test_digits_that_are_all_read_right_do_not_make_it_certain() -> None:
    answers = np.full((50, 10), 0.05, np.float32) + 0.5 * np.eye(10, dtype=np.float32)[3]
    labels = np.full(50, 3, np.uint8)
    assert calibration.temperature(answers, labels) == pytest.approx(1 / calibration.LIMIT)


def test_an_answer_of_nothing_is_no_error() -> None:
    answers = np.tile(np.eye(10, dtype=np.float32)[3], (50, 1))
    labels = np.array([3] * 40 + [5] * 10, np.uint8)
    assert calibration.temperature(answers, labels) == pytest.approx(calibration.LIMIT)


def test_folded_into_the_weights_it_divides_the_logits(dataset: Dataset) -> None:
    model = fit(RECIPES["perceptron"].lasting(1), dataset.train[:600], seed=0).model
    before = evaluate(model, dataset.test).probabilities
    calibration.fold(model, 0.4)
    after = evaluate(model, dataset.test).probabilities
    assert np.allclose(after, softmax(np.log(before.astype(np.float64)) / 0.4), atol=1e-5)
