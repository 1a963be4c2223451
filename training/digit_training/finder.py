"""Finder of peaks: runs the detector on pages of any size, at the levels of a pyramid."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from digit_core.reading.peaks import CLASSES, SIGN, Peaks
from digit_training.detector import BOX_UNIT, HEIGHTS, MULTIPLE, STRIDE, stretch

Found: TypeAlias = tuple[tf.Tensor, tf.Tensor, tf.Tensor]
"""Scores [n, k], classes [n, k, 11] and boxes [n, k, 4]."""
Finder: TypeAlias = Callable[[NDArray[np.uint8]], list[Peaks]]
"""Function that finds the peaks of each of the pages, uint8 [n, h, w]."""

LEVELS = 4
"""Levels of the pyramid: the page, and halves, quarters and eighths of it."""
MIN_SCORE = 0.05
"""Score above which a peak is returned. The exported graph holds it; reading's `min_weak_score` is higher."""
LEVEL_PEAKS = 192
"""Largest number of peaks of a level, and of a page."""
SURE_SCORE = 0.9
"""Score of a digit at a coarse level from which on the finest level may be left out."""
FINE_SCORE = 0.1
"""Least score of a low digit at a coarse level for which the finest level is needed."""


def finder(network: keras.Model) -> Finder:
    """Return a function that finds the peaks of pages, by the network's weights at each call."""
    find = tf.function(partial(find_peaks, network), reduce_retracing=True)

    def find_all(pages: NDArray[np.uint8]) -> list[Peaks]:
        found = find(tf.constant(pages))
        columns = (found[name].numpy() for name in ("scores", "classes", "boxes"))
        return [Peaks(*rows) for rows in zip(*columns, strict=True)]

    return find_all


def find_peaks(network: Any, pages: tf.Tensor) -> dict[str, tf.Tensor]:
    """Return the peaks of pages uint8 [n, h, w], the best ones first.

    The finest level, the page itself, is left out where the coarser ones show sure digits, too high for it.
    `scores` float32 [n, k], 0 where a page has fewer peaks; `classes` float32 [n, k, 11], probabilities;
    `boxes` float32 [n, k, 4], left, top, width and height in pixels.
    """
    levels = [tf.cast(pages, tf.float32)[..., tf.newaxis]]
    for _ in range(LEVELS - 1):
        levels.append(tf.nn.avg_pool2d(levels[-1], 2, 2, "SAME"))

    def look(level: int) -> Found:
        return _peaks(network(stretch(_pad(levels[level])), training=False), 2.0**level)

    coarse = _join([look(level) for level in range(1, LEVELS)])
    count = tf.shape(pages)[0]
    none = tf.zeros((count, 0)), tf.zeros((count, 0, CLASSES)), tf.zeros((count, 0, 4))
    # Cascade: the finest level costs three quarters of the pyramid.
    fine = tf.cond(_needs_finest(*coarse), lambda: look(0), lambda: none)
    scores, classes, boxes = _join([fine, coarse])
    count = tf.minimum(LEVEL_PEAKS, tf.reduce_max(tf.reduce_sum(tf.cast(scores > 0, tf.int32), axis=1)))
    best = tf.math.top_k(scores, count)
    return {
        "scores": best.values,
        "classes": tf.gather(classes, best.indices, batch_dims=1),
        "boxes": tf.gather(boxes, best.indices, batch_dims=1),
    }


def _join(parts: list[Found]) -> Found:
    scores, classes, boxes = (tf.concat(values, axis=1) for values in zip(*parts, strict=True))
    return scores, classes, boxes


def _needs_finest(scores: tf.Tensor, classes: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """True unless the coarse levels show a sure digit on each page, and no low one."""
    is_sure = (scores >= SURE_SCORE) & (tf.argmax(classes, axis=-1) < SIGN)
    is_low = (scores >= FINE_SCORE) & (boxes[..., 3] < HEIGHTS[1])
    return tf.reduce_any(is_low) | ~tf.reduce_all(tf.reduce_any(is_sure, axis=1))


def _pad(levels: tf.Tensor) -> tf.Tensor:
    """Pad pages with their mean, about the level of the paper, to sides that the network takes."""
    shape = tf.shape(levels)
    low = 2 * MULTIPLE
    size = tf.maximum(low, (shape[1:3] + MULTIPLE - 1) // MULTIPLE * MULTIPLE)
    mean = tf.reduce_mean(levels, axis=(1, 2, 3), keepdims=True)
    missing = size - shape[1:3]
    return mean + tf.pad(levels - mean, [[0, 0], [0, missing[0]], [0, missing[1]], [0, 0]])


def _peaks(cells: tf.Tensor, scale: float) -> Found:
    """Return scores [n, k], classes [n, k, 11] and boxes [n, k, 4] of the local maxima of one level."""
    scores = tf.sigmoid(cells[..., 0])
    is_peak = (scores >= tf.nn.max_pool2d(scores[..., tf.newaxis], 3, 1, "SAME")[..., 0]) & (
        scores > MIN_SCORE
    )
    shape = tf.shape(scores)
    flat = tf.reshape(tf.where(is_peak, scores, 0.0), [shape[0], -1])
    best = tf.math.top_k(flat, tf.minimum(LEVEL_PEAKS, tf.shape(flat)[1]))
    chosen = tf.gather(tf.reshape(cells, [shape[0], -1, cells.shape[-1]]), best.indices, batch_dims=1)
    x = (tf.cast(best.indices % shape[2], tf.float32) + 0.5) * STRIDE
    y = (tf.cast(best.indices // shape[2], tf.float32) + 0.5) * STRIDE
    left, top, right, bottom = tf.unstack(
        tf.exp(tf.minimum(chosen[..., 1 + CLASSES :], 4.0)) * BOX_UNIT, axis=-1
    )
    boxes = tf.stack([x - left, y - top, left + right, top + bottom], axis=-1) * scale
    return best.values, tf.nn.softmax(chosen[..., 1 : 1 + CLASSES]), boxes
