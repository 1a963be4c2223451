"""PNG plots of digits and of a prediction."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from digit_training.data import Dataset
from digit_training.report import plots


@pytest.mark.parametrize("count", [3, 500])
def test_save_samples_draws_at_most_twenty_digits(dataset: Dataset, tmp_path: Path, count: int) -> None:
    plots.save_samples(dataset.train[:count], tmp_path / "digits.png")
    ink = imread(tmp_path / "digits.png")[:, :, :3].mean(axis=2)
    # Twenty black squares cover 40% of the plot, three cover 3%.
    assert (ink < 0.1).mean() > (0.03 if count == 3 else 0.4)


def test_save_prediction_draws_the_probabilities(dataset: Dataset, tmp_path: Path) -> None:
    sure, unsure = np.eye(10, dtype=np.float32)[3], np.full(10, 0.1, np.float32)
    plots.save_prediction(dataset.test, 0, sure, tmp_path / "sure.png")
    plots.save_prediction(dataset.test, 0, unsure, tmp_path / "unsure.png")
    pictures = [imread(tmp_path / name) for name in ("sure.png", "unsure.png")]
    assert pictures[0].shape == pictures[1].shape
    assert not np.array_equal(pictures[0], pictures[1])
