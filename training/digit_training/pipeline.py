"""The two jobs of this room from end to end: fit and publish a model; publish one fitted elsewhere."""

import json
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import keras
from rich.console import Console

from digit_training import data as datasets
from digit_training import device, quality_gate, registry
from digit_training import export as exports
from digit_training.callbacks import FitDisplay
from digit_training.data import Dataset
from digit_training.errors import Interrupted, ModelError
from digit_training.evaluation import Evaluation, evaluate
from digit_training.export import card
from digit_training.fit import Fit, fit
from digit_training.models import reading_pixels
from digit_training.quality_gate import Bar
from digit_training.recipes import RECIPES, Recipe
from digit_training.report import plots
from digit_training.report.page import page


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
    bar: Bar,
) -> None:
    """Follows a recipe, leaves a page on it and a Keras file in `report` and publishes under `output`.

    What is None is taken from the recipe, or for a place from the time. Raises TrainingError, Interrupted
    where the user ends the fit with Ctrl-C: what it learned until then is left in `report`.
    """
    console = _console()
    dataset = _load(console, data)
    folder = report or Path("runs") / datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    plots.digits(dataset.train, folder / "digits.png")
    console.print(f"Twenty of them: {folder / 'digits.png'}")

    chosen = RECIPES[recipe].adjusted(batch_size, learning_rate)
    if epochs:
        chosen = chosen.lasting(epochs)
    elif dataset.offline:
        chosen = chosen.stretched(len(dataset.train))
    fitted = _fit(console, chosen, dataset, seed)
    fitted.model.save(folder / "model.keras")
    console.print(f"Keras model: {folder / 'model.keras'}")

    evaluation = _evaluate(console, fitted.model, dataset)
    plots.prediction(dataset.test, 0, evaluation.probabilities[0], folder / "prediction.png")
    console.print(f"Prediction for a test image: {folder / 'prediction.png'}")
    figures = card(fitted.model, dataset, evaluation, fitted)
    (folder / "report.html").write_text(page(fitted, dataset, evaluation, figures), encoding="utf-8")
    console.print(f"Report: {folder / 'report.html'}")
    if not fitted.complete:
        raise Interrupted(
            f"Interrupted after {fitted.extent}, and not published. "
            f"To publish what it has learned: digits export {folder / 'model.keras'}"
        )
    bar.require(evaluation.accuracy, _standard(console, output, dataset))
    _publish(console, fitted.model, dataset, figures, output)
    if chosen.more:
        console.print(chosen.more)


def export(*, file: Path, data: Path | None, output: Path, bar: Bar) -> None:
    """Judges the model in a Keras file and publishes it under `output`. Raises TrainingError."""
    console = _console()
    model = _read_model(file)
    dataset = _load(console, data)
    evaluation = _evaluate(console, model, dataset)
    bar.require(evaluation.accuracy, _standard(console, output, dataset))
    _publish(console, model, dataset, card(model, dataset, evaluation), output)


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def _load(console: Console, data: Path | None) -> Dataset:
    with console.status("Reading MNIST, which is downloaded (11 MB) where it is not found"):
        dataset = datasets.load(data)
    if dataset.offline:
        console.print("MNIST cannot be downloaded (offline?): using the sample of 5,000 digits instead.")
    kind = "canonical MNIST" if dataset.canonical else "not canonical MNIST"
    sizes = f"{len(dataset.train):,} training and {len(dataset.test):,} test digits"
    console.print(f"Data: {sizes} from {dataset.source} ({kind})")
    return dataset


def _fit(console: Console, recipe: Recipe, dataset: Dataset, seed: int) -> Fit:
    console.print(f"Device: {device.name()}")
    try:
        with closing(FitDisplay(console, recipe.networks)) as display:
            return fit(recipe, dataset.train, seed, [display])
    except KeyboardInterrupt:
        raise Interrupted("Interrupted before the first epoch had ended: nothing is kept.") from None


def _evaluate(console: Console, model: keras.Model, dataset: Dataset) -> Evaluation:
    evaluation = evaluate(model, dataset.test)
    console.print(
        f"Test accuracy: {evaluation.accuracy:.4f} on {len(dataset.test):,} digits, "
        f"calibration error {evaluation.calibration_error:.4f}"
    )
    return evaluation


def _standard(console: Console, output: Path, dataset: Dataset) -> tuple[str, float] | None:
    """The version that is served now and its accuracy on the same digits, which its card may not be about."""
    version = quality_gate.find(output)
    if version is None:
        return None
    try:
        probabilities = exports.answers(version, dataset.test.pixels)
    except ModelError as error:
        console.print(f"Nothing to compare it with: {error}")
        return None
    accuracy = float((probabilities.argmax(axis=1) == dataset.test.labels).mean())
    console.print(f"On the same digits {version} has {accuracy:.4f}")
    return str(version), accuracy


def _read_model(file: Path) -> keras.Model:
    if not file.is_file():
        raise ModelError(f"{file} does not exist")
    try:
        return reading_pixels(keras.saving.load_model(file, compile=False))
    except ModelError as error:
        raise ModelError(f"{file}: {error}") from error
    # What a damaged file or a layer unknown here makes Keras raise is not documented.
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(f"{file} is no model that Keras can load: {reason}") from error


def _publish(
    console: Console,
    model: keras.Model,
    dataset: Dataset,
    figures: dict[str, Any],
    output: Path,
) -> None:
    def write(directory: Path) -> None:
        exports.save(model, directory)
        extra = directory / "assets.extra"
        extra.mkdir()
        exports.write(extra / "tf_serving_warmup_requests", dataset.test)
        (extra / "model.json").write_text(json.dumps(figures, indent=2) + "\n")

    console.print(f"Published: {registry.publish(output, write)}")
