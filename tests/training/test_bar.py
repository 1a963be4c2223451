import pytest

from digit_training.bar import Bar
from digit_training.errors import AccuracyError

BAR = Bar(minimum=0.85, regression=0.01)


@pytest.mark.parametrize("standard", [None, ("models/1", 0.85), ("models/1", 0.86)])
def test_the_bar_itself_is_high_enough(standard: tuple[str, float] | None) -> None:
    BAR.require(0.85, standard)


@pytest.mark.parametrize(
    ("accuracy", "standard", "complaint"),
    [
        (0.8499, None, "0.8499 is below the minimum of 0.85"),
        (0.8499, ("models/1", 0.1), "0.8499 is below the minimum of 0.85"),
        (0.9799, ("models/1", 0.99), "0.9799 is more than 0.01 below the 0.9900 of models/1"),
    ],
)
def test_a_model_below_it_passes_only_by_force(
    accuracy: float, standard: tuple[str, float] | None, complaint: str
) -> None:
    with pytest.raises(AccuracyError, match=complaint):
        BAR.require(accuracy, standard)
    Bar(BAR.minimum, BAR.regression, forced=True).require(accuracy, standard)
