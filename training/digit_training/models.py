"""The networks: plain Keras 3, from pixels float32 [n, 784], 0..1, to probabilities float32 [n, 10]."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

from digit_training.errors import ModelError


def perceptron() -> keras.Model:
    """The article's network to the letter: 7,960 parameters."""
    return keras.Sequential(
        [
            keras.Input((784,), name="pixels"),
            layers.Dense(10, activation="sigmoid"),
            layers.Dense(10, activation="softmax"),
        ],
        name="perceptron",
    )


def convnet() -> keras.Model:
    """Small enough to fit in a minute and a half on two cores: 135,594 parameters.

    The first convolution moves by two pixels, so that none of the rest works at full size.
    """
    return keras.Sequential(
        [
            keras.Input((784,), name="pixels"),
            layers.Reshape((28, 28, 1)),
            *_normalised(layers.Conv2D(32, 5, strides=2, padding="same", use_bias=False)),
            *_normalised(layers.Conv2D(32, 3, use_bias=False)),
            layers.MaxPooling2D(),
            *_normalised(layers.Conv2D(64, 3, use_bias=False)),
            *_normalised(layers.Conv2D(96, 3, use_bias=False)),
            layers.Flatten(),
            layers.Dropout(0.2),
            *_normalised(layers.Dense(128, use_bias=False)),
            layers.Dropout(0.2),
            layers.Dense(10, activation="softmax"),
        ],
        name="convnet",
    )


def together(members: Sequence[keras.Model]) -> keras.Model:
    """One network that answers with the softmax of the mean of the members' logits.

    Each takes [n, 784] and ends in Dense with a softmax; of these last layers one is made.
    """
    pixels = keras.Input((784,), name="pixels")
    seen = [
        keras.Model(member.inputs, member.layers[-1].input, name=f"{member.name}_{number}")(pixels)
        for number, member in enumerate(members, 1)
    ]
    last = layers.Dense(10, activation="softmax")
    name = f"{members[0].name}_committee"
    committee = keras.Model(pixels, last(layers.Concatenate()(seen)), name=name)
    weights, biases = zip(*(member.layers[-1].get_weights() for member in members), strict=True)
    last.set_weights([np.concatenate(weights) / len(members), np.mean(biases, axis=0)])
    return committee


def _normalised(layer: keras.Layer) -> tuple[keras.Layer, ...]:
    """Followed by a normalisation over the batch (Ioffe and Szegedy, 2015), which has biases of its own.

    Of few digits there are fewer batches than Keras's own momentum averages over.
    """
    return layer, layers.BatchNormalization(momentum=0.9), layers.ReLU()


def reading_pixels(model: keras.Model) -> keras.Model:
    """The model itself where it takes [n, 784], else one over the same weights that does.

    Raises ModelError where its input is none of the three or its output is not [n, 10].
    """
    if isinstance(model.input_shape, list) or model.input_shape[1:] not in {(784,), (28, 28), (28, 28, 1)}:
        raise ModelError(
            f"the model takes {_shape(model.input_shape)}, not [n, 784], [n, 28, 28] or [n, 28, 28, 1]"
        )
    if isinstance(model.output_shape, list) or model.output_shape[1:] != (10,):
        raise ModelError(f"the model answers {_shape(model.output_shape)}, not [n, 10]")
    if model.input_shape[1:] == (784,):
        return model
    pixels = keras.Input((784,), name="pixels")
    return keras.Model(pixels, model(layers.Reshape(model.input_shape[1:])(pixels)), name=model.name)


def _shape(shape: object) -> str:
    return str(shape).replace("None", "n").replace("(", "[").replace(")", "]")
