"""Network architectures in plain Keras 3.

Each network maps pixels float32 [n, 784], 0..1, to probabilities float32 [n, 10]. A network with two outputs
gives a dictionary of `probabilities` and `is_digit`, float32 [n, 1]: the probability of a digit.
"""

from typing import Any

import keras
from keras import layers

PROBABILITIES = "probabilities"
IS_DIGIT = "is_digit"
"""Names of the outputs, and of the layers that give them."""

MAX_PICTURES = 64
"""Largest number of units whose weights are shown as pictures."""


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
    """Return a convolutional network of 135,723 parameters with two outputs.

    The first convolution has stride 2, so that no later layer computes at full resolution: two cores fit the
    network in three and a half minutes.
    """
    pixels = keras.Input((784,), name="pixels")
    features = pixels
    for layer in (
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
    ):
        features = layer(features)
    outputs = {
        PROBABILITIES: layers.Dense(10, activation="softmax", name=PROBABILITIES)(features),
        IS_DIGIT: layers.Dense(1, activation="sigmoid", name=IS_DIGIT)(features),
    }
    return keras.Model(pixels, outputs, name="convnet")


def has_is_digit(model: keras.Model) -> bool:
    """True if the model has the output `is_digit`."""
    # Model.output_shape omits the names of the outputs.
    return isinstance(model.compute_output_shape(model.input_shape), dict)


def output_layers(model: keras.Model) -> dict[str, keras.Layer]:
    """Return the layer of each output of a network of this module, by the output's name."""
    if has_is_digit(model):
        return {name: model.get_layer(name) for name in (PROBABILITIES, IS_DIGIT)}
    return {PROBABILITIES: model.layers[-1]}


def activated(model: keras.Model) -> dict[str, Any]:
    """Return the outputs of the layers with an activation function, in their order.

    Layers of nested models are among them. The names have the layer's number, in two digits, and the output's
    name or the kind of the layer that is activated.
    """
    outputs: dict[str, Any] = {}
    kind = ""
    for layer in model.layers:
        if isinstance(layer, (layers.Dense, layers.Conv2D)):
            kind = type(layer).__name__
        function = getattr(layer, "activation", keras.activations.linear)
        if getattr(layer, "inputs", None):
            # Layer.input is what the nested model is called with; Functional.input are its own inputs.
            outer = keras.Layer.input.fget(layer)
            for name, output in activated(layer).items():
                outputs[f"{len(outputs):02}{name[2:]}"] = keras.Model(layer.inputs, output)(outer)
        elif isinstance(layer, (layers.ReLU, layers.Softmax)) or function is not keras.activations.linear:
            name = layer.name if layer.name in (PROBABILITIES, IS_DIGIT) else kind or type(layer).__name__
            outputs[f"{len(outputs):02}_{name}"] = layer.output
    return outputs


def pixel_weights(model: keras.Model, pixels: int) -> Any:
    """Return the weights [pixels, units] of a Dense layer that takes the pixels themselves; None of others.

    More units than MAX_PICTURES are left out: nobody looks at so many pictures.
    """
    first: Any = next((layer for layer in model.layers if layer.weights), None)
    if isinstance(first, keras.Model):
        return pixel_weights(first, pixels)
    is_seen = isinstance(first, layers.Dense) and first.input.shape[1:] == (pixels,)
    return first.kernel if is_seen and first.units <= MAX_PICTURES else None


def named_outputs(model: keras.Model, outputs: Any) -> dict[str, Any]:
    """Return what the model answers as a dictionary of `probabilities` [n, k] and, if any, `is_digit` [n].

    `outputs` are tensors or arrays in the structure of the model's outputs.
    """
    if not has_is_digit(model):
        return {PROBABILITIES: outputs}
    return {PROBABILITIES: outputs[PROBABILITIES], IS_DIGIT: outputs[IS_DIGIT][:, 0]}


def _batch_normalized(layer: keras.Layer) -> tuple[keras.Layer, ...]:
    """Return the layer, batch normalisation (Ioffe and Szegedy, 2015) and ReLU.

    The layer needs no bias, since the normalisation has one. The momentum is 0.9, since a small training set
    has fewer batches than Keras's default of 0.99 averages over.
    """
    return layer, layers.BatchNormalization(momentum=0.9), layers.ReLU()
