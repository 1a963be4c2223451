"""Conventions: ranges and orders of channels, tried on labelled pictures or on probes."""

from collections.abc import Callable
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers

from digit_core.artifact.task_card import CardInput, TaskCard
from digit_training import conventions
from digit_training.classifier import Convention
from digit_training.data import Examples

SHAPE = (8, 8, 3)
TASK = TaskCard("hues", ("a", "b", "c", "d"), CardInput(SHAPE, (0.0, 1.0)))
PLAIN = Convention()


def with_range(low: float, high: float) -> TaskCard:
    return replace(TASK, input=CardInput(SHAPE, (low, high)))


@pytest.fixture(scope="module")
def examples() -> Examples:
    """200 pictures whose four labels overlap, so that one in ten is not recognized."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 4
    colors = np.array([[150, 90, 60], [60, 150, 90], [90, 60, 150], [130, 120, 110]])
    means = colors[labels] + rng.normal(0, 22, (200, 3))
    noise = rng.normal(0, 40, (200, *SHAPE))
    return Examples(np.clip(means[:, None, None] + noise, 0, 255).astype(np.uint8), labels)


Scale = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def fitted(examples: Examples) -> Callable[..., keras.Model]:
    """Function that fits a network to pixels that are scaled, with or without biases."""

    def fit(scale: Scale, use_bias: bool = True) -> keras.Model:
        keras.utils.set_random_seed(0)
        pixels = scale(examples.images.astype(np.float32))
        model = keras.Sequential(
            [
                keras.Input(SHAPE),
                layers.GlobalAveragePooling2D(),
                layers.Dense(16, "relu", use_bias=use_bias),
                layers.Dense(4, "softmax", use_bias=use_bias),
            ]
        )
        model.compile(keras.optimizers.Adam(0.03), "sparse_categorical_crossentropy")
        model.fit(pixels, examples.labels, epochs=60, batch_size=200, verbose=0)
        return model

    return fit


def contradiction(model: keras.Model, task: TaskCard, examples: Examples, claimed: Convention = PLAIN) -> str:
    return conventions.contradiction(conventions.try_all(model, task, claimed, examples, 0.7), 0.7)


RANGES = {
    (0.0, 1.0): lambda pixels: pixels / 255,
    (0.0, 255.0): lambda pixels: pixels,
    (-1.0, 1.0): lambda pixels: pixels / 127.5 - 1,
    (-0.5, 0.5): lambda pixels: pixels / 255 - 0.5,
}


@pytest.mark.parametrize("fitted_to", RANGES)
def test_contradiction_of_a_wrong_range_names_the_one_that_the_network_was_fitted_to(
    fitted_to: tuple[float, float], fitted: Callable[..., keras.Model], examples: Examples
) -> None:
    model = fitted(RANGES[fitted_to])
    assert contradiction(model, with_range(*fitted_to), examples) == ""
    for claimed in RANGES.keys() - {fitted_to}:
        said = contradiction(model, with_range(*claimed), examples)
        assert f"with --range={fitted_to[0]:g},{fitted_to[1]:g} " in said, (claimed, said)


def test_contradiction_of_a_range_that_only_makes_the_network_too_sure(
    fitted: Callable[..., keras.Model], examples: Examples
) -> None:
    """A network without biases has the same labels in 0..255, each with a confidence of 1."""
    model = fitted(RANGES[0.0, 1.0], use_bias=False)
    wrong, right, *_ = conventions.try_all(model, with_range(0, 255), PLAIN, examples, 0.7)
    assert np.array_equal(wrong.right, right.right)
    assert wrong.confidence > 0.99 > 0.95 > right.confidence
    assert "with --range=0,1 " in contradiction(model, with_range(0, 255), examples)
    assert contradiction(model, with_range(0, 1), examples) == ""


def test_contradiction_by_few_answers_that_are_wrong_and_sure() -> None:
    # The claimed convention has four right answers more, by chance, and each of its six wrong ones is sure.
    def trial(pixels: tuple[float, float], wrong: int, *losses: tuple[float, float]) -> conventions.Trial:
        right = np.arange(160) >= wrong
        raw, matched = (np.where(right, *pair) for pair in losses)
        return conventions.Trial(pixels, PLAIN, "", right, raw, matched, 0.94)

    sure = trial((0.0, 255.0), 6, (0.0, 9.2), (0.1, 3.3))
    unsure = trial((0.0, 1.0), 10, (0.05, 1.5), (0.1, 1.1))
    assert "--range=0,1 150 of 160 pictures" in conventions.contradiction([sure, unsure], 0.7)
    assert conventions.contradiction([unsure, sure], 0.7) == ""


def test_contradiction_of_the_order_of_the_channels_and_of_a_mean_names_them(
    fitted: Callable[..., keras.Model], examples: Examples
) -> None:
    mean = np.array([103.939, 116.779, 123.68], np.float32)
    model = fitted(lambda pixels: (pixels[..., ::-1] - mean) / 60)
    caffe = Convention(mean=tuple(mean.tolist()), std=(60,), is_bgr=True)
    task = with_range(0, 255)
    assert contradiction(model, task, examples, caffe) == ""
    said = contradiction(model, task, examples, replace(caffe, is_bgr=False))
    assert 'color = "bgr" under [prepare] of the card' in said
