import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from digit_client._types import decode


@given(
    arrays.arrays(np.float32, st.tuples(st.integers(1, 5), st.just(10)), elements=st.floats(0, 8, width=32))
)
def test_the_digit_is_the_most_probable(scores: np.ndarray) -> None:
    exponents = np.exp(scores)
    probabilities = (exponents / exponents.sum(axis=1, keepdims=True)).astype(np.float32)
    for prediction, row in zip(decode(probabilities, 7), probabilities, strict=True):
        assert prediction.digit == int(row.argmax())
        assert prediction.confidence == max(prediction.probabilities) == pytest.approx(float(row.max()))
        assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-3)
        assert prediction.model_version == 7


@pytest.mark.parametrize(
    "output",
    [
        np.full((2, 9), 1 / 9, np.float32),
        np.full(10, 0.1, np.float32),
        np.full((1, 10), np.nan, np.float32),
        np.full((1, 10), np.inf, np.float32),
        np.full((1, 10), 0.2, np.float32),
        np.array([[2, -1, 0, 0, 0, 0, 0, 0, 0, 0]], np.float32),
    ],
)
def test_what_is_no_distribution_is_refused(output: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"probabilit"):
        decode(output, 1)


def test_predictions_are_values() -> None:
    row = np.eye(10, dtype=np.float32)[3:4]
    assert decode(row, 1) == decode(row, 1)
    assert hash(decode(row, 1)[0])
