"""Network architectures in plain Keras 3.

Each network maps pixels float32 [n, 784], 0..1, to probabilities float32 [n, 10].
"""

from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

from digit_training.errors import ModelError

INPUT_SHAPES = {(784,), (28, 28), (28, 28, 1)}


def perceptron() -> keras.Model:
    """Return the article's network, unchanged: 7,960 parameters.

    The article is "How to build a Deep Learning model in 10 lines"; see docs/tutorials/from-ten-lines.md.
    """
    return keras.Sequential(
        [
            keras.Input((784,), name="pixels"),
            layers.Dense(10, activation="sigmoid"),
            layers.Dense(10, activation="softmax"),
        ],
        name="perceptron",
    )


def convnet() -> keras.Model:
    """Return a convolutional network of 135,594 parameters.

    The first convolution has stride 2, so that no later layer computes at full resolution: two cores fit the
    network in a minute and a half.
    """
    return keras.Sequential(
        [
            keras.Input((784,), name="pixels"),
            layers.Reshape((28, 28, 1)),
            *_batch_normalized(layers.Conv2D(32, 5, strides=2, padding="same", use_bias=False)),
            *_batch_normalized(layers.Conv2D(32, 3, use_bias=False)),
            layers.MaxPooling2D(),
            *_batch_normalized(layers.Conv2D(64, 3, use_bias=False)),
            *_batch_normalized(layers.Conv2D(96, 3, use_bias=False)),
            layers.Flatten(),
            layers.Dropout(0.2),
            *_batch_normalized(layers.Dense(128, use_bias=False)),
            layers.Dropout(0.2),
            layers.Dense(10, activation="softmax"),
        ],
        name="convnet",
    )


def ensemble(members: Sequence[keras.Model]) -> keras.Model:
    """Return a network whose output is the softmax of the mean of the members' logits.

    Each member takes [n, 784] and ends in a Dense layer with softmax; the ensemble merges these layers.
    """
    pixels = keras.Input((784,), name="pixels")
    features = [
        keras.Model(member.inputs, member.layers[-1].input, name=f"{member.name}_{number}")(pixels)
        for number, member in enumerate(members, 1)
    ]
    last = layers.Dense(10, activation="softmax")
    name = f"{members[0].name}_ensemble"
    model = keras.Model(pixels, last(layers.Concatenate()(features)), name=name)
    weights, biases = zip(*(member.layers[-1].get_weights() for member in members), strict=True)
    last.set_weights([np.concatenate(weights) / len(members), np.mean(biases, axis=0)])
    return model


def with_flat_input(model: keras.Model) -> keras.Model:
    """Return a model that takes [n, 784] and shares the weights; the model itself if it takes [n, 784].

    Raise ModelError if the input is not [n, 784], [n, 28, 28] or [n, 28, 28, 1], or the output not [n, 10].
    """
    if isinstance(model.input_shape, list) or model.input_shape[1:] not in INPUT_SHAPES:
        raise ModelError(
            f"the model takes {_format_shape(model.input_shape)}, not [n, 784], [n, 28, 28] or [n, 28, 28, 1]"
        )
    if isinstance(model.output_shape, list) or model.output_shape[1:] != (10,):
        raise ModelError(f"the model answers {_format_shape(model.output_shape)}, not [n, 10]")
    if model.input_shape[1:] == (784,):
        return model
    pixels = keras.Input((784,), name="pixels")
    return keras.Model(pixels, model(layers.Reshape(model.input_shape[1:])(pixels)), name=model.name)


def _batch_normalized(layer: keras.Layer) -> tuple[keras.Layer, ...]:
    """Return the layer, batch normalisation (Ioffe and Szegedy, 2015) and ReLU.

    The layer needs no bias, since the normalisation has one. The momentum is 0.9, since a small training set
    has fewer batches than Keras's default of 0.99 averages over.
    """
    return layer, layers.BatchNormalization(momentum=0.9), layers.ReLU()


def _format_shape(shape: object) -> str:
    return str(shape).replace("None", "n").replace("(", "[").replace(")", "]")
