"""Export of the reader: a SavedModel that takes grey pages of any size and returns the peaks it finds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from digit_core.artifact.task_card import READER_NAME
from digit_core.tfserving.codec import (
    LINE_WEIGHTS_OUTPUT,
    PAGES_INPUT,
    PIXELS_SIGNATURE,
    ModelRef,
    encode_page,
)
from digit_training.export import write_extra
from digit_training.finder import find_peaks

WARMUP_SHAPES = ((480, 640), (96, 192))
"""Sides of the pages in the warm-up requests."""


def write_reader(network: keras.Model, card: dict[str, Any], directory: Path) -> None:
    """Write the SavedModel of a detector, and into `assets.extra` the warm-up requests and the model card.

    Its signature `serving_default` takes `pages` uint8 [n, h, w] and answers as `find_peaks` does, with the
    card's weights of lines for each page, so that a version's answer brings its own.
    """
    constant = _with_constant_weights(network)
    line_weights = tf.constant([card["lines"]["weights"]], tf.float32)

    def answer(pages: tf.Tensor) -> dict[str, tf.Tensor]:
        found = find_peaks(constant, pages)
        return found | {LINE_WEIGHTS_OUTPUT: tf.repeat(line_weights, tf.shape(pages)[0], axis=0)}

    find = tf.function(answer, input_signature=[tf.TensorSpec([None, None, None], tf.uint8, PAGES_INPUT)])
    module = tf.Module()
    module.weights = [weight.value for weight in network.weights]
    tf.saved_model.save(module, str(directory), {PIXELS_SIGNATURE: find})
    blank = [encode_page(np.full(shape, 255, np.uint8), ModelRef(READER_NAME)) for shape in WARMUP_SHAPES]
    # The client's messages are classes of their own.
    write_extra(directory, card, [PredictRequest.FromString(page.SerializeToString()) for page in blank])


def _with_constant_weights(network: keras.Model) -> Callable[..., tf.Tensor]:
    """Return the network with its weights as constants, from which TensorFlow folds the normalisations.

    This reduces the time of a page by a third.
    """
    trainable, others = (
        [weight.numpy() for weight in weights]
        for weights in (network.trainable_variables, network.non_trainable_variables)
    )

    def call(levels: tf.Tensor, training: bool = False) -> tf.Tensor:
        constants = ([tf.constant(value) for value in values] for values in (trainable, others))
        outputs, _ = network.stateless_call(*constants, levels, training=training)
        return outputs

    return call
