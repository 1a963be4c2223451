"""Peaks of the detector at the levels of a pyramid."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from digit_core.reading.peaks import CLASSES
from digit_core.reading.thresholds import THRESHOLDS
from digit_training.detector import BOX_UNIT
from digit_training.finder import MIN_SCORE, find_peaks


class BrightCells:
    """Network that scores cells by their brightness, as the class 4, with a box of 16 by 32 pixels."""

    def __call__(self, levels: tf.Tensor, training: bool) -> tf.Tensor:
        bright = tf.nn.avg_pool2d(levels, 4, 4, "SAME")
        one_hot = tf.one_hot(tf.fill(tf.shape(bright)[:-1], 4), CLASSES) * 20
        distances = np.log(np.array([8, 16, 8, 16], np.float32) / BOX_UNIT)
        boxes = tf.broadcast_to(distances, [*tf.unstack(tf.shape(bright)[:-1]), 4])
        return tf.concat([12 * bright, one_hot, boxes], axis=-1)


def find(page: np.ndarray, network: Any = None) -> dict[str, np.ndarray]:
    return {
        name: value.numpy()[0] for name, value in find_peaks(network or BrightCells(), page[None]).items()
    }


def test_floor_of_the_graph_is_below_the_scores_that_reading_takes() -> None:
    assert THRESHOLDS.min_weak_score > MIN_SCORE


def test_find_peaks_returns_boxes_in_pixels_of_the_page() -> None:
    page = np.zeros((128, 192), np.uint8)
    page[40:44, 60:64] = 255
    found = find(page)
    assert found["boxes"][0] == pytest.approx((54, 26, 16, 32))
    assert found["classes"][0].argmax() == 4
    assert found["scores"][0] > 0.99
    assert (np.diff(found["scores"]) <= 0).all()


def test_find_peaks_of_sure_large_digits_leave_out_the_finest_level() -> None:
    page = np.zeros((256, 256), np.uint8)
    page[96:128, 96:128] = 255
    found = find(page)
    sides = {
        round(float(box[2]))
        for box, score in zip(found["boxes"], found["scores"], strict=True)
        if score > 0.9
    }
    assert sides == {32, 64, 128}


def test_find_peaks_of_blank_page_is_empty() -> None:
    found = find(
        np.full((50, 70), 200, np.uint8), lambda levels, training: BrightCells()(levels - 3, training)
    )
    assert all(len(values) == 0 for values in found.values())


def test_find_peaks_are_at_least_the_minimum() -> None:
    rng = np.random.default_rng(0)
    scores = find(rng.integers(0, 255, (100, 130), dtype=np.uint8))["scores"]
    assert (scores > MIN_SCORE).all()
