from pathlib import Path

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


@pytest.mark.parametrize("build", [models.perceptron, models.convnet])
def test_every_model_reads_pixels_and_answers_probabilities(build: type[keras.Model]) -> None:
    answer = build().predict(np.zeros((3, 784), np.float32), verbose=0)
    assert answer.shape == (3, 10)
    assert answer.dtype == np.float32
    assert np.allclose(answer.sum(axis=1), 1)


def test_together_they_answer_with_the_softmax_of_their_mean_logits() -> None:
    pixels = np.random.default_rng(0).random((3, 784), np.float32)
    for build in (models.perceptron, models.convnet):
        members = [build() for _ in range(3)]
        logits = [np.log(member.predict(pixels, verbose=0)) for member in members]
        expected = np.exp(np.mean(logits, axis=0))
        committee = models.together(members)
        answer = committee.predict(pixels, verbose=0)
        assert np.allclose(answer, expected / expected.sum(axis=1, keepdims=True), atol=1e-6)
        assert committee.count_params() == sum(member.count_params() for member in members) - 2 * 10


# TensorFlow 2.20's variables know nothing of an argument that NumPy 2 passes when Keras saves them.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_together_they_are_saved_and_read_as_one(tmp_path: Path) -> None:
    file, pixels = tmp_path / "model.keras", np.random.default_rng(0).random((3, 784), np.float32)
    committee = models.together([models.convnet(), models.convnet()])
    committee.save(file)
    again = models.reading_pixels(keras.saving.load_model(file))
    assert np.array_equal(again.predict(pixels, verbose=0), committee.predict(pixels, verbose=0))


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
