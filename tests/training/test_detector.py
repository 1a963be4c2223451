"""Detector: targets, loss and shapes."""

import numpy as np
import pytest

from digit_core.reading.peaks import CLASSES
from digit_training.detector import (
    BOX_UNIT,
    STRIDE,
    TARGETS,
    detection_loss,
    detector,
    stretch,
    targets,
)

SHAPE = (96, 192)


def perfect_cells(expected: np.ndarray) -> np.ndarray:
    """Return the cells of a network that knows the targets, [1, rows, columns, 16]."""
    score = np.clip(expected[..., :1], 1e-4, 1 - 1e-4)
    labels = 20 * np.eye(CLASSES, dtype=np.float32)[expected[..., 2].astype(int)]
    cells = np.concatenate((np.log(score / (1 - score)), labels, expected[..., 3:]), axis=-1)
    return np.asarray(cells[np.newaxis], np.float32)


def test_targets_peak_in_the_middle_and_give_the_box() -> None:
    result = targets(np.array([[40, 20, 20, 40]], np.float32), np.array([7]), SHAPE)
    assert result.shape == (24, 48, TARGETS)
    row, column = divmod(int(result[..., 0].argmax()), 48)
    assert (row, column) == (10, 12)
    assert result[row, column, :3].tolist() == [1, 1, 7]
    left, top, right, bottom = np.exp(result[row, column, 3:]) * BOX_UNIT
    x, y = (column + 0.5) * STRIDE, (row + 0.5) * STRIDE
    assert (x - left, y - top, x + right, y + bottom) == pytest.approx((40, 20, 60, 60), abs=0.01)
    assert not result[:3, :, 0].any()


def test_targets_ignore_boxes_that_are_cut_off() -> None:
    result = targets(np.array([[0, 0, 30, 30]], np.float32), np.array([-1]), SHAPE)
    assert not result[..., 0].any()
    assert result[2, 2, 1] == 0
    assert result[20, 40, 1] == 1


def test_targets_of_tiny_box_have_one_cell() -> None:
    result = targets(np.array([[101, 51, 2, 2]], np.float32), np.array([10]), SHAPE)
    assert (result[..., 0] == 1).sum() == 1


def test_loss_is_least_for_the_targets() -> None:
    boxes = np.array([[40, 20, 20, 40], [70, 22, 20, 40]], np.float32)
    expected = targets(boxes, np.array([7, 3]), SHAPE)
    right = perfect_cells(expected)
    moved, misread, missed = right.copy(), right.copy(), right.copy()
    moved[..., 1 + CLASSES :] += 1
    misread[..., 1 : 1 + CLASSES] = np.roll(right[..., 1 : 1 + CLASSES], 1, axis=-1)
    missed[..., 0] = -8
    batch = expected[np.newaxis]
    least = float(detection_loss(batch, right)[0])
    for worse in (moved, misread, missed):
        assert float(detection_loss(batch, worse)[0]) > least + 1


def test_network_takes_pages_of_any_size() -> None:
    network = detector()
    for height, width in ((96, 192), (48, 56)):
        cells = network(np.zeros((2, height, width, 1), np.float32))
        assert tuple(cells.shape) == (2, height // STRIDE, width // STRIDE, 1 + CLASSES + 4)
    assert network.count_params() < 250_000


def test_stretch_makes_contrast_comparable() -> None:
    levels = np.full((2, 16, 16, 1), 120, np.float32)
    levels[0, 4:8, 4:8] = 70
    low, high = np.min(stretch(levels)[0]), np.max(stretch(levels)[0])
    assert (low, high) == pytest.approx((-1, 1))
    # Noise of a blank page stays small.
    levels[1, 4:8, 4:8] = 122
    assert np.ptp(stretch(levels)[1]) < 0.2
