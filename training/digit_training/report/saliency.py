"""Saliency maps of the perceptron: the influence of ink at each pixel on each digit's score."""

import keras
import numpy as np
from keras import activations, layers, ops
from numpy.typing import NDArray

from digit_training.data import Examples


def saliency_maps(model: keras.Model, examples: Examples) -> NDArray[np.float32] | None:
    """Return the change of each digit's score per standard deviation of each pixel: float32 [10, 28, 28].

    The score is the digit's logit minus the mean of all ten, since softmax ignores a common offset. Its
    change is its mean slope over the examples, times the pixel's standard deviation, which is 0 for pixels
    that never have ink: their weights are still random.

    Return None unless the network is a sigmoid layer followed by a softmax layer.
    """
    if not _is_perceptron(model):
        return None
    pixels = examples.pixels
    first, second = (layer.get_weights()[0] for layer in model.layers)
    hidden = ops.convert_to_numpy(model.layers[0](pixels))
    slopes = first @ ((hidden * (1 - hidden)).mean(axis=0)[:, None] * second)
    slopes -= slopes.mean(axis=1, keepdims=True)
    result: NDArray[np.float32] = (slopes * pixels.std(axis=0)[:, None]).T.reshape(10, 28, 28)
    return result


def _is_perceptron(model: keras.Model) -> bool:
    return all(isinstance(layer, layers.Dense) for layer in model.layers) and [
        layer.activation for layer in model.layers
    ] == [activations.sigmoid, activations.softmax]
