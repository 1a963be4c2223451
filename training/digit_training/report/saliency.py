"""What a perceptron looks at: where ink speaks for a digit, and where against it."""

import keras
import numpy as np
from keras import activations, layers, ops
from numpy.typing import NDArray

from digit_training.data import Examples


def evidence(model: keras.Model, examples: Examples) -> NDArray[np.float32] | None:
    """How far usual ink at each pixel moves each digit's score: float32 [10, 28, 28], above 0 for the digit.

    It is the mean slope over the examples of the digit's logit, less that of all ten, since a softmax forgets
    what they share, times the standard deviation of the pixel, since the weights of a pixel that never has
    ink are still the random ones of the start. None for any network but pixels, sigmoids, softmax.
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
