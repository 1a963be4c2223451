"""Training pipeline: data, fit, evaluation, report, quality gate, export.

A model that was fitted elsewhere, for any task, skips the fit.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from digit_client import DIGITS, TaskCard
from digit_training import cards, classifier, device, pictures, registry
from digit_training import data as datasets
from digit_training import export as exports
from digit_training.callbacks import FitProgress
from digit_training.data import Dataset
from digit_training.errors import CardError, DataError, Interrupted, ModelError
from digit_training.evaluation import Evaluation, evaluate
from digit_training.export import model_card
from digit_training.fit import FitResult, fit
from digit_training.pictures import LabelledPictures
from digit_training.quality_gate import Baseline, QualityGate, baseline_version
from digit_training.recipes import RECIPES, Recipe
from digit_training.report import plots
from digit_training.report.page import render_page

MAX_NAMED = 5
"""Most left-out pictures that are named, of each kind."""


def train(
    *,
    recipe: str,
    data: Path | None,
    output: Path,
    report: Path | None,
    seed: int,
    epochs: int | None,
    batch_size: int | None,
    learning_rate: float | None,
    gate: QualityGate,
) -> None:
    """Fit a recipe, write the report and the Keras file into `report`, and publish the model under `output`.

    None selects the recipe's own value, for `data` the default source (see data.load), and for `report` a
    folder named by the time. Raise TrainingError for bad data or a model that fails the gate. Raise
    Interrupted after Ctrl-C; report and Keras file then hold the incomplete fit, if an epoch has ended.
    """
    console = _console()
    dataset = _load(console, data)
    folder = report or Path("runs") / datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    plots.save_samples(dataset.train, folder / "digits.png")
    console.print(f"Sample digits: {folder / 'digits.png'}")

    selected = RECIPES[recipe].with_overrides(batch_size, learning_rate)
    if epochs:
        selected = selected.with_epochs(epochs)
    elif dataset.offline:
        selected = selected.scaled_to(len(dataset.train))
    result = _fit(console, selected, dataset, seed)
    result.model.save(folder / "model.keras")
    console.print(f"Keras model: {folder / 'model.keras'}")

    test_pictures = _test_digits(dataset)
    evaluation = _evaluate(console, result.model, DIGITS, test_pictures)
    plots.save_prediction(dataset.test, 0, evaluation.probabilities[0], folder / "prediction.png")
    console.print(f"Prediction for a test image: {folder / 'prediction.png'}")
    card = model_card(result.model, DIGITS, test_pictures.description, evaluation, result)
    page = render_page(DIGITS, card, test_pictures, evaluation, result, dataset.train)
    _write_report(console, page, folder)
    if not result.complete:
        raise Interrupted(
            f"Interrupted after {result.progress}; the model is not published. "
            f"To publish it as it is: digits export {folder / 'model.keras'}"
        )
    gate.check(evaluation.accuracy, _evaluate_baseline(console, output, DIGITS, test_pictures))
    _publish(console, result.model, DIGITS, card, test_pictures.examples.images, output)
    if selected.hint:
        console.print(selected.hint)


def export(
    *,
    file: Path | None,
    saved_model: Path | None,
    signature: str,
    card: Path | None,
    labels: str | None,
    data: Path | None,
    output: Path | None,
    report: Path | None,
    gate: QualityGate,
) -> None:
    """Evaluate the model in a Keras file, or else in a SavedModel, and publish it under `output`.

    `card` is a TOML file; `labels`, separated by commas, stand for a minimal card; without either, the task
    is that of the digits. None selects for `data` the digits' default source, for `output` `models/<name>`
    with the card's name, and for `report` none. Raise TrainingError for bad data, an unsuitable model or
    card, or a model that fails the gate.
    """
    classifier.check_backend()
    console = _console()
    model, task = _load_model(file, saved_model, signature, card, labels)
    test_pictures = _load_test_pictures(console, data, task, gate.force)
    folder = output or Path("models") / task.name
    if test_pictures is None:
        console.print("Without --data the model is not evaluated.")
        description = model_card(model, task, None, None)
        _publish(console, model, task, description, np.zeros((1, *task.shape), np.uint8), folder)
        return
    evaluation = _evaluate(console, model, task, test_pictures)
    description = model_card(model, task, test_pictures.description, evaluation)
    if report:
        report.mkdir(parents=True, exist_ok=True)
        _write_report(console, render_page(task, description, test_pictures, evaluation), report)
    gate.check(evaluation.accuracy, _evaluate_baseline(console, folder, task, test_pictures))
    _publish(console, model, task, description, test_pictures.examples.images, folder)


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def _load(console: Console, data: Path | None) -> Dataset:
    with console.status("Reading MNIST (the first time, a download of 11 MB)"):
        dataset = datasets.load(data)
    if dataset.offline:
        console.print("MNIST cannot be downloaded (offline?). Using the bundled sample of 5,000 digits.")
    kind = "the original MNIST" if dataset.canonical else "not the original MNIST"
    sizes = f"{len(dataset.train):,} training and {len(dataset.test):,} test digits"
    console.print(f"Data: {sizes} from {dataset.source} ({kind})")
    return dataset


def _fit(console: Console, recipe: Recipe, dataset: Dataset, seed: int) -> FitResult:
    console.print(f"Device: {device.name()}")
    try:
        with closing(FitProgress(console, recipe.networks)) as progress:
            return fit(recipe, dataset.train, seed, [progress])
    except KeyboardInterrupt:
        raise Interrupted("Interrupted before the end of the first epoch; no model is saved.") from None


def _load_model(
    file: Path | None, saved_model: Path | None, signature: str, card: Path | None, labels: str | None
) -> tuple[keras.Model, TaskCard]:
    """Return the model, with the input of its card, and the card."""
    source = file or saved_model
    assert source
    with _naming_file_in_errors(source):
        model = classifier.load_keras(file) if file else classifier.load_saved_model(source, signature)
    hint = ""
    if card:
        with _naming_file_in_errors(card):
            task = cards.complete(cards.read(card), model)
    elif labels is not None:
        with _naming_file_in_errors(source):
            task = cards.complete(cards.minimal(source, labels), model)
    else:
        task, hint = DIGITS, " (the digits' card; see --task and --labels)"
    with _naming_file_in_errors(source, hint):
        return classifier.adapt(model, task), task


@contextmanager
def _naming_file_in_errors(path: Path, hint: str = "") -> Iterator[None]:
    """Name the file in the message of a CardError or ModelError."""
    try:
        yield
    except (CardError, ModelError) as error:
        raise type(error)(f"{path}: {error}{hint}") from error


def _load_test_pictures(
    console: Console, data: Path | None, task: TaskCard, force: bool
) -> LabelledPictures | None:
    """Return the pictures of the evaluation; None if there are none and `force` allows it."""
    if task.reads_numbers and (data is None or datasets.has_training_set(data)):
        return _test_digits(_load(console, data))
    if data is None:
        if force:
            return None
        raise DataError("--data is needed to evaluate the model; --force publishes it without")
    with console.status("Reading pictures"):
        test_pictures = pictures.load(data, task)
    console.print(f"Data: {len(test_pictures):,} pictures in {data}")
    _print_left_out(console, "unreadable", test_pictures.unreadable)
    _print_left_out(console, "refused in serving", test_pictures.refused)
    return test_pictures


def _print_left_out(console: Console, reason: str, names: Sequence[str]) -> None:
    if names:
        more = len(names) - MAX_NAMED
        rest = f"; and {more:,} more" if more > 0 else ""
        console.print(f"Left out as {reason}: {len(names):,} ({'; '.join(names[:MAX_NAMED])}{rest})")


def _test_digits(dataset: Dataset) -> LabelledPictures:
    names = [f"index {index}" for index in range(len(dataset.test))]
    return LabelledPictures(dataset.test, dataset.describe(), names)


def _evaluate(
    console: Console, model: keras.Model, task: TaskCard, test_pictures: LabelledPictures
) -> Evaluation:
    evaluation = evaluate(model, test_pictures.examples, task)
    console.print(
        f"Test accuracy: {evaluation.accuracy:.4f} on {len(test_pictures):,} pictures, "
        f"calibration error {evaluation.calibration_error:.4f}"
    )
    if evaluation.refusals:
        shares = [scored.refused_share for scored in evaluation.refusals.negatives.values()]
        console.print(
            f"Refused as no digit: {evaluation.refusals.digits.refused_share:.2%} of the test digits, "
            f"{sum(shares) / len(shares):.0%} of {len(shares)} kinds of negatives"
        )
    return evaluation


def _evaluate_baseline(
    console: Console, output: Path, task: TaskCard, test_pictures: LabelledPictures
) -> Baseline | None:
    """Evaluate the served version on these pictures; the accuracy in its model card may be that of others."""
    version = baseline_version(output)
    if version is None:
        return None
    try:
        served = exports.read_task(version)
        # The signature `images` scales to each version's own range.
        if served.labels != task.labels or not replace(served, range=task.range).prepares_as(task):
            raise ModelError(f"{version} has other labels or takes other pictures")
        probabilities = exports.predict_saved_model(version, test_pictures.examples.images)
    except ModelError as error:
        console.print(f"No comparison with the served version: {error}")
        return None
    accuracy = float((probabilities.argmax(axis=1) == test_pictures.examples.labels).mean())
    console.print(f"Accuracy of {version} on the same pictures: {accuracy:.4f}")
    return Baseline(str(version), accuracy)


def _write_report(console: Console, page: str, folder: Path) -> None:
    (folder / "report.html").write_text(page, encoding="utf-8")
    console.print(f"Report: {folder / 'report.html'}")


def _publish(
    console: Console,
    model: keras.Model,
    task: TaskCard,
    card: dict[str, Any],
    warmup_images: NDArray[np.uint8],
    output: Path,
) -> None:
    version = registry.publish(
        output, lambda directory: exports.write_artifact(model, task, card, warmup_images, directory)
    )
    console.print(f"Published: {version}")
