"""Thresholding: soft masks of strokes, printed lines, and noise."""

import cv2
import numpy as np
import pytest

from digit_client.images import NoInkError, thresholding
from tests.client.images.pictures import FloatImage

SHAPE = (300, 400)


def line(width: int) -> FloatImage:
    return np.asarray(cv2.line(np.zeros(SHAPE, np.float32), (150, 60), (220, 240), 1, width, cv2.LINE_AA))


def test_threshold_ink_soft_stroke_fades_at_its_edge() -> None:
    noise = np.random.default_rng(0).normal(0, 2, SHAPE).astype(np.float32)
    soft = cv2.GaussianBlur(line(12), (0, 0), 2)
    ink = thresholding.threshold_ink(np.maximum(100 * soft + noise, 0), is_paper=True)
    assert ink[soft > 0.97].min() > 0.9
    assert ink[soft == 0].max() == 0
    assert 0 < ink[(soft > 0.4) & (soft < 0.6)].mean() < 0.9


def test_threshold_ink_printed_line_is_removed_on_paper_only() -> None:
    ruled = cv2.line(100 * line(12), (0, 150), (399, 150), 100, 2)
    across = np.s_[148:153, 300:]
    assert thresholding.threshold_ink(ruled, is_paper=False)[across].any()
    assert not thresholding.threshold_ink(ruled, is_paper=True)[across].any()


@pytest.mark.parametrize("level", [0.0, 4.0])
def test_threshold_ink_noise_raises_no_ink(level: float) -> None:
    noise = np.abs(np.random.default_rng(0).normal(0, level, SHAPE)).astype(np.float32)
    with pytest.raises(NoInkError):
        thresholding.threshold_ink(noise, is_paper=True)
