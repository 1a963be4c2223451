"""Training loop: fits a recipe's network, with or without augmentation."""

import gc
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np

from digit_core.artifact.task_card import DIGITS
from digit_training import device, evaluation, models
from digit_training.augment import MILD, STRONG, augment
from digit_training.callbacks import BestWeights, class_logs, defer_interrupt, verbosity
from digit_training.classifier import predict
from digit_training.data import NO_DIGIT, Examples, Labels
from digit_training.drawing import negatives, synthetic
from digit_training.models import IS_DIGIT, PROBABILITIES
from digit_training.recipes import Recipe

STEPS_PER_EXECUTION = 25
"""Steps per call of the training function, which saves time between short steps."""

MAX_REFUSED = 0.005
"""Share of readable held-out digits that the threshold of `is_digit` may refuse."""

MIN_CONFIDENCE = 0.9
"""Least confidence of the right answer on a readable digit."""

CROPPED_NEGATIVES = 0.2
"""Share of negatives that are what the reader takes for digits."""


class CropSource(Protocol):
    """Source of examples that are cropped from pages as in serving, such as the module `reader.crops`."""

    def crop_digits(self, count: int, digits: Examples, rng: np.random.Generator) -> Examples:
        """Return `count` digits."""

    def crop_negatives(self, count: int, digits: Examples, rng: np.random.Generator) -> Examples:
        """Return `count` negatives."""


@dataclass(frozen=True)
class TrainingData:
    """Examples that a network learns from."""

    examples: Examples
    """Digits, of which the recipe holds some out for validation, and draws others beside each part."""
    crops: CropSource
    """Source of half of the synthetic digits, and of the share CROPPED_NEGATIVES of the negatives."""
    feedback: Examples | None = None
    """Examples for training alone, so that no copy of a repeated input is in the validation examples."""


@dataclass(frozen=True)
class Threshold:
    """Threshold of `is_digit` before it was folded into the weights, and the digits that it was chosen on."""

    value: float
    readable_digits: int
    refused_share: float
    """Share of these digits below the threshold."""


@dataclass(frozen=True)
class FitResult:
    """A fitted model and how it was fitted."""

    model: keras.Model
    recipe: Recipe
    seed: int
    train: Examples
    """Training examples, without the feedback and the synthetic ones."""
    feedback_examples: int
    synthetic_examples: int
    negative_examples: int
    validation_examples: int
    epochs: int
    """Number of completed epochs."""
    best_epoch: int
    """Epoch, from 1, of the model's weights."""
    history: dict[str, list[float]]
    """Values per epoch by Keras's names, for the probabilities: loss, accuracy, val_loss, val_accuracy.

    NaN for the epochs before an interruption.
    """
    temperature: float | None
    """Temperature fitted to the validation examples, folded into the weights; None without such examples."""
    threshold: Threshold | None
    """Threshold of `is_digit`, folded into the weights; None without that output or validation examples."""
    seconds: float
    """Duration of the fit."""
    device: str

    @property
    def examples(self) -> int:
        """Number of training examples, without the feedback and the synthetic ones."""
        return len(self.train)

    @property
    def complete(self) -> bool:
        """True if the fit was not interrupted."""
        return self.epochs == self.recipe.epochs

    @property
    def progress(self) -> str:
        """Completed part of the recipe, such as "3 of 9 epochs"."""
        return f"{self.epochs} of {self.recipe.epochs} epochs"


def fit(
    recipe: Recipe, data: TrainingData, seed: int, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> FitResult:
    """Fit the recipe's network; the same seed and machine give the same model.

    After Ctrl-C, return the best of the completed epochs. Raise KeyboardInterrupt if no epoch has ended. With
    Keras's BackupAndRestore among the `callbacks`, another call of the same arguments goes on after the last
    epoch.
    """
    device.enable_determinism()
    keras.utils.set_random_seed(seed)
    validation, train = _split(data.examples, recipe.validation_split, seed)
    rng = np.random.default_rng(seed)
    extra = _draw_digits(recipe, train, data.crops, rng)
    judging = validation + _draw_digits(recipe, validation, data.crops, rng)
    model = recipe.build()
    has_two_outputs = models.has_is_digit(model)
    negative_count = round(recipe.negative_fraction * len(train)) if has_two_outputs else 0
    cropped = round(CROPPED_NEGATIVES * negative_count)
    refused = negatives.draw_negatives(negative_count - cropped, rng, train + extra)
    refused += data.crops.crop_negatives(cropped, train, rng)
    feedback = train[:0] if data.feedback is None else data.feedback
    mixed = train + feedback + refused + extra
    _compile(model, recipe, len(mixed))
    history, best_weights = keras.callbacks.History(), BestWeights()
    followers: list[keras.callbacks.Callback] = []
    inputs: dict[str, Any]
    if recipe.augmented:
        batches = AugmentedBatches(recipe, mixed, seed, has_two_outputs)
        followers = [keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _: batches.set_epoch(epoch))]
        inputs = {"x": batches}
    else:
        targets, *weights = fit_targets(mixed.labels, has_two_outputs)
        inputs = {"x": mixed.pixels, "y": targets, "batch_size": recipe.batch_size}
        inputs["sample_weight"] = weights[0] if weights else None
    validation_data = (judging.pixels, *fit_targets(judging.labels, has_two_outputs))
    started = time.perf_counter()
    with suppress(KeyboardInterrupt), defer_interrupt() as interrupt:
        model.summary()
        model.fit(
            **inputs,
            epochs=recipe.epochs,
            validation_data=validation_data if len(judging) else None,
            validation_batch_size=500,
            callbacks=[best_weights, history, *callbacks, *followers, interrupt],
            verbose=verbosity(),
        )
    epochs = history.epoch[-1] + 1 if history.epoch else 0
    if epochs < recipe.epochs:
        # The destructor of TensorFlow's batch reader calls Python: run it before the interpreter shuts down.
        gc.collect()
    if not epochs:
        raise KeyboardInterrupt
    model.set_weights(best_weights.best_weights)
    return FitResult(
        model=model,
        recipe=recipe,
        seed=seed,
        train=train,
        feedback_examples=len(feedback),
        synthetic_examples=len(extra),
        negative_examples=len(refused),
        validation_examples=len(validation),
        epochs=epochs,
        best_epoch=best_weights.best_epoch + 1,
        history={
            name: [math.nan] * history.epoch[0] + values
            for name, values in class_logs(history.history).items()
        },
        temperature=_calibrate(model, validation) if len(validation) else None,
        threshold=_choose_threshold(model, validation, rng) if has_two_outputs and len(validation) else None,
        seconds=time.perf_counter() - started,
        device=device.name(),
    )


class AugmentedBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """Shuffled batches of examples, distorted anew in each epoch, in the last ones mildly.

    A batch is pixels float32 [batch_size, 784], 0..1, and labels uint8 [batch_size]; for two outputs,
    `fit_targets` replaces the labels. A batch depends only on seed, epoch and index, so that prefetching
    threads do not affect the result.
    """

    def __init__(self, recipe: Recipe, examples: Examples, seed: int, has_two_outputs: bool = False) -> None:
        """Create the batches of epoch 0."""
        # TensorFlow tunes a reader with one worker, and an epoch then ends only when the tuner next wakes up:
        # it takes up to twice as long.
        super().__init__(workers=2, max_queue_size=2 * STEPS_PER_EXECUTION)
        self.recipe, self.seed, self.has_two_outputs = recipe, seed, has_two_outputs
        self.examples = examples
        self.set_epoch(0)

    def __len__(self) -> int:
        return math.ceil(len(self.examples) / self.recipe.batch_size)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        size = self.recipe.batch_size
        batch = self.examples[self.order[index * size : (index + 1) * size]]
        rng = np.random.default_rng([self.seed, self.epoch, index])
        images = augment(batch.images, rng, MILD if self.is_mild else STRONG)
        return Examples(images, batch.labels).pixels, *fit_targets(batch.labels, self.has_two_outputs)

    def set_epoch(self, epoch: int) -> None:
        """Shuffle the examples for this epoch, counted from 0; to be called before the epoch begins.

        PyDataset.on_epoch_end does not suit: Keras calls it once too often, and while threads read batches.
        """
        self.epoch = epoch
        self.is_mild = epoch >= self.recipe.epochs - self.recipe.mild_epochs
        self.order = np.random.default_rng([self.seed, epoch]).permutation(len(self.examples))


def fit_targets(labels: Labels, has_two_outputs: bool) -> tuple[Any, ...]:
    """Return the labels [n], or for two outputs the targets and the weights of the examples, each by output.

    Negatives have the weight 0 in the loss and the accuracy of the probabilities.
    """
    if not has_two_outputs:
        return (labels,)
    is_digit = (labels != NO_DIGIT).astype(np.float32)
    # Labels must be in range even where the weight is 0.
    targets = {PROBABILITIES: np.where(labels == NO_DIGIT, 0, labels), IS_DIGIT: is_digit[:, None]}
    return targets, {PROBABILITIES: is_digit, IS_DIGIT: np.ones_like(is_digit)}


def _split(examples: Examples, validation_split: float, seed: int) -> tuple[Examples, Examples]:
    """Return the validation and the training examples."""
    count = round(len(examples) * validation_split)
    if not count:
        # The original order gives the same fit as the article's Keras code with the same seed.
        return examples[:0], examples
    order = np.random.default_rng(seed).permutation(len(examples))
    return examples[order[:count]], examples[order[count:]]


def _draw_digits(recipe: Recipe, digits: Examples, crops: CropSource, rng: np.random.Generator) -> Examples:
    """Return the synthetic digits beside these: half alone, half cropped from pages as in serving.

    Those beside the validation examples let the best epoch be one that knows them: on MNIST alone, which the
    start of a continued fit knows already, the first epoch is the best.
    """
    count = round(recipe.synthetic_fraction * len(digits))
    return synthetic.make_digits(count - count // 2, rng) + crops.crop_digits(count // 2, digits, rng)


def _compile(model: keras.Model, recipe: Recipe, examples: int) -> None:
    steps = recipe.epochs * math.ceil(examples / recipe.batch_size)
    # The mean over the weights, so that negatives change neither loss nor accuracy of the probabilities.
    loss = keras.losses.SparseCategoricalCrossentropy(reduction="mean_with_sample_weight")
    has_two_outputs = models.has_is_digit(model)
    model.compile(
        optimizer=recipe.optimizer(recipe.learning_rate, steps),
        loss={PROBABILITIES: loss, IS_DIGIT: "binary_crossentropy"} if has_two_outputs else loss,
        weighted_metrics={PROBABILITIES: "accuracy"} if has_two_outputs else ["accuracy"],
        steps_per_execution=STEPS_PER_EXECUTION,
    )


def _calibrate(model: keras.Model, validation: Examples) -> float:
    probabilities = predict(model, validation.images, DIGITS)[PROBABILITIES]
    temperature = evaluation.fit_temperature(probabilities, validation.labels)
    evaluation.fold_temperature(model, temperature)
    return temperature


def _choose_threshold(model: keras.Model, validation: Examples, rng: np.random.Generator) -> Threshold:
    """Choose the threshold of `is_digit` on readable held-out digits, and fold it into the weights.

    The digits are the validation examples, plain and mildly distorted, and synthetic ones.
    """
    digits = validation + Examples(augment(validation.images, rng, MILD), validation.labels)
    digits += synthetic.make_digits(len(validation) // 5, rng)
    outputs = predict(model, digits.images, DIGITS)
    probabilities = outputs[PROBABILITIES]
    is_readable = probabilities[np.arange(len(digits)), digits.labels] >= MIN_CONFIDENCE
    scores = outputs[IS_DIGIT][is_readable] if is_readable.any() else outputs[IS_DIGIT]
    threshold = evaluation.fit_threshold(scores, MAX_REFUSED)
    evaluation.fold_threshold(model, threshold)
    return Threshold(threshold, len(scores), float((scores < threshold).mean()))
