from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from digit_training.data import Dataset
from digit_training.report import plots


@pytest.mark.parametrize("count", [3, 20, 500])
def test_digits_are_drawn_however_many_there_are(dataset: Dataset, tmp_path: Path, count: int) -> None:
    plots.digits(dataset.train[:count], tmp_path / "digits.png")
    ink = imread(tmp_path / "digits.png")[:, :, :3].mean(axis=2)
    # Twenty black squares cover more of the page than three.
    assert (ink < 0.1).mean() > (0.03 if count == 3 else 0.4)


def test_a_prediction_is_drawn_beside_its_image(dataset: Dataset, tmp_path: Path) -> None:
    sure, unsure = np.eye(10, dtype=np.float32)[3], np.full(10, 0.1, np.float32)
    plots.prediction(dataset.test, 0, sure, tmp_path / "sure.png")
    plots.prediction(dataset.test, 0, unsure, tmp_path / "unsure.png")
    pictures = [imread(tmp_path / name) for name in ("sure.png", "unsure.png")]
    assert pictures[0].shape == pictures[1].shape
    assert not np.array_equal(pictures[0], pictures[1])
