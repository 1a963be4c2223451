"""Detector in plain Keras 3: a score, a class and a box for each cell of a grey page.

The network is fully convolutional, so that it takes pages of any size. T. Zhi et al., "FCOS: Fully
convolutional one-stage object detection", ICCV 2019; X. Li et al., "Generalized focal loss", NeurIPS 2020.
"""

from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from digit_core.reading.peaks import CLASSES

STRIDE = 4
"""Side of a cell in pixels."""
HEIGHTS = (11.0, 64.0)
"""Heights of digits, in pixels, that the reader learns to find at one level of the pyramid."""
MULTIPLE = 8
"""Number of pixels of which both sides of a page are multiples."""
MIN_CONTRAST = 24.0
"""Least difference of the lightest and the darkest level that is stretched to the whole range."""
BOX_UNIT = 8.0
"""Pixels from a cell's centre to a side of the box where the network's output is 0."""
SPREAD = 0.16
"""Standard deviation of a score around the centre of its box, as a share of the box's sides."""
POSITIVE_SCORE = 0.5
"""Least target of the score of a cell that learns the class and the box."""
MIN_TARGET = 0.05
"""Targets of scores below this are 0."""
TARGETS = 7
"""Channels of the targets: score, weight, class, and the logarithms of four distances."""


def detector() -> keras.Model:
    """Return the network: grey levels float32 [n, h, w, 1], 0..255, to float32 [n, h / 4, w / 4, 16].

    The channels are the logit of the score, the logits of the classes, and the logarithms of the distances
    from a cell's centre to the left, top, right and bottom of the box, in units of `BOX_UNIT`. `h` and `w`
    are multiples of `MULTIPLE`.
    """
    page = keras.Input((None, None, 1), name="page")
    features = _convolve(page, 16, 5, strides=2)
    features = _convolve(features, 32, 3, strides=2)
    fine = _convolve(features, 32, 3)
    features = _convolve(fine, 64, 3, strides=2)
    for dilation in (2, 3):
        inner = _convolve(features, 64, 3, dilation_rate=dilation)
        inner = layers.Conv2D(64, 3, padding="same", use_bias=False)(inner)
        inner = layers.BatchNormalization(momentum=0.98)(inner)
        features = layers.ReLU()(layers.Add()([features, inner]))
    # A transposed convolution, since UpSampling2D fails for pages of unknown size.
    raised = layers.Conv2DTranspose(32, 2, strides=2, use_bias=False)(features)
    raised = layers.BatchNormalization(momentum=0.98)(raised)
    joined = layers.ReLU()(layers.Add()([raised, fine]))
    joined = _convolve(joined, 48, 3)
    bias = keras.initializers.Constant(np.array([-4.0] + [0.0] * (CLASSES + 4), np.float32))
    outputs = layers.Conv2D(1 + CLASSES + 4, 1, bias_initializer=bias, name="cells")(joined)
    return keras.Model(page, outputs, name="reader")


def stretch(levels: Any) -> Any:
    """Stretch the contrast of each page, float32 [n, h, w, 1] in 0..255, to about -1..1.

    The lightest and darkest levels are those of means of 2×2 pixels, which a pixel of noise does not move.
    """
    means = ops.average_pool(levels, 2, 2, padding="valid", data_format="channels_last")
    low = ops.min(means, axis=(1, 2, 3), keepdims=True)
    high = ops.max(means, axis=(1, 2, 3), keepdims=True)
    scale = 2.0 / ops.maximum(high - low, MIN_CONTRAST)
    return (levels - (low + high) / 2) * scale


def targets(
    boxes: NDArray[np.float32], classes: NDArray[np.int64], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Return what the network learns on a page of `shape`, in pixels: float32 [h / 4, w / 4, TARGETS].

    `boxes`, [k, 4], are left, top, width and height in pixels; the loss ignores boxes of the class -1.
    """
    rows, columns = shape[0] // STRIDE, shape[1] // STRIDE
    result = np.zeros((rows, columns, TARGETS), np.float32)
    result[:, :, 1] = 1
    for (left, top, width, height), label in zip(boxes.tolist(), classes.tolist(), strict=True):
        # The window of the cells around the box, and their middles in pixels.
        first, last = max(0, int(top / STRIDE) - 1), min(rows, int((top + height) / STRIDE) + 2)
        start, end = max(0, int(left / STRIDE) - 1), min(columns, int((left + width) / STRIDE) + 2)
        y = (np.arange(first, last, dtype=np.float32)[:, np.newaxis] + 0.5) * STRIDE
        x = (np.arange(start, end, dtype=np.float32)[np.newaxis] + 0.5) * STRIDE
        window = result[first:last, start:end]
        if label < 0:
            window[:, :, 1] = 0
            continue
        # At least one cell is near the middle of a small box.
        spread_x, spread_y = max(SPREAD * width, 0.6 * STRIDE), max(SPREAD * height, 0.6 * STRIDE)
        across, down = (x - left - width / 2) / spread_x, (y - top - height / 2) / spread_y
        score = np.exp(-(across * across + down * down) / 2)
        score[score < MIN_TARGET] = 0
        row = min(rows - 1, max(0, int((top + height / 2) / STRIDE))) - first
        column = min(columns - 1, max(0, int((left + width / 2) / STRIDE))) - start
        score[row, column] = 1
        better = score > window[:, :, 0]
        values = np.empty((*score.shape, TARGETS), np.float32)
        values[..., 0], values[..., 1], values[..., 2] = score, 1, label
        values[..., 3], values[..., 4] = x - left, y - top
        values[..., 5], values[..., 6] = left + width - x, top + height - y
        values[..., 3:] = np.log(np.maximum(values[..., 3:], 0.5) / BOX_UNIT)
        window[better] = values[better]
    return result


def detection_loss(expected: Any, cells: Any) -> Any:
    """Return the loss of each page: quality focal loss of the scores, and losses of classes and boxes.

    Takes targets [n, rows, columns, TARGETS] and cells [n, rows, columns, 16]; returns [n].
    """
    score, weight = expected[..., 0], expected[..., 1]
    logit = cells[..., 0]
    predicted = ops.sigmoid(logit)
    entropy = ops.softplus(logit) - score * logit
    of_scores = weight * ops.square(score - predicted) * entropy
    near = weight * ops.where(score >= POSITIVE_SCORE, score, 0.0)
    labels = ops.one_hot(ops.cast(expected[..., 2], "int32"), CLASSES)
    of_classes = near * -ops.sum(labels * ops.log_softmax(cells[..., 1 : 1 + CLASSES]), axis=-1)
    errors = ops.abs(expected[..., 3:] - cells[..., 1 + CLASSES :])
    of_boxes = near * ops.mean(ops.minimum(errors, 4.0), axis=-1)
    total = 4.0 * of_scores + of_classes + 2.0 * of_boxes
    # Normalised by the objects of the batch: a page without any counts as much as one with a few.
    count = ops.maximum(ops.mean(ops.sum(near, axis=(1, 2))), 1.0)
    return ops.sum(total, axis=(1, 2)) / count


def _convolve(features: Any, filters: int, size: int, **options: Any) -> Any:
    """Return the features after convolution, batch normalisation (Ioffe and Szegedy, 2015) and ReLU."""
    features = layers.Conv2D(filters, size, padding="same", use_bias=False, **options)(features)
    return layers.ReLU()(layers.BatchNormalization(momentum=0.98)(features))
