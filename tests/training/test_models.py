import keras
import numpy as np
import pytest
from keras import layers

from digit_training import models
from digit_training.errors import ModelError


def ending(shape: tuple[int, ...], classes: int = 10) -> keras.Model:
    return keras.Sequential(
        [keras.Input(shape), layers.Flatten(), layers.Dense(classes, activation="softmax")]
    )


def test_the_perceptron_is_the_articles() -> None:
    model = models.perceptron()
    assert model.count_params() == 7960
    assert [layer.activation.__name__ for layer in model.layers] == ["sigmoid", "softmax"]


@pytest.mark.parametrize("build", [models.perceptron, models.convnet, models.wide_convnet])
def test_every_model_reads_pixels_and_answers_probabilities(build: type[keras.Model]) -> None:
    answer = build().predict(np.zeros((3, 784), np.float32), verbose=0)
    assert answer.shape == (3, 10)
    assert answer.dtype == np.float32
    assert np.allclose(answer.sum(axis=1), 1)


@pytest.mark.parametrize("shape", [(784,), (28, 28), (28, 28, 1)])
def test_other_shapes_are_read_as_pixels(shape: tuple[int, ...]) -> None:
    model = ending(shape)
    pixels = np.random.default_rng(0).random((3, 784), np.float32)
    expected = model.predict(pixels.reshape(3, *shape), verbose=0)
    assert np.array_equal(models.reading_pixels(model).predict(pixels, verbose=0), expected)


@pytest.mark.parametrize(
    ("shape", "classes", "complaint"),
    [
        ((32, 32, 3), 10, r"takes \[n, 32, 32, 3\], not \[n, 784\]"),
        ((784,), 26, r"answers \[n, 26\], not \[n, 10\]"),
    ],
)
def test_a_model_of_something_else_is_refused(shape: tuple[int, ...], classes: int, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        models.reading_pixels(ending(shape, classes))


def test_a_model_with_two_inputs_is_refused() -> None:
    inputs = [keras.Input((784,)), keras.Input((784,))]
    model = keras.Model(inputs, layers.Dense(10)(layers.Add()(inputs)))
    with pytest.raises(ModelError, match="the model takes"):
        models.reading_pixels(model)
