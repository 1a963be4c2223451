"""Training pipeline: data, fit, evaluation, report, quality gate, export.

A model that was fitted elsewhere skips fit and report.
"""

from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import keras
from rich.console import Console

from digit_training import data as datasets
from digit_training import device, registry
from digit_training import export as exports
from digit_training.callbacks import FitProgress
from digit_training.data import Dataset
from digit_training.errors import Interrupted, ModelError
from digit_training.evaluation import Evaluation, evaluate
from digit_training.export import model_card
from digit_training.fit import FitResult, fit
from digit_training.models import with_flat_input
from digit_training.quality_gate import Baseline, QualityGate, baseline_version
from digit_training.recipes import RECIPES, Recipe
from digit_training.report import plots
from digit_training.report.page import render_page


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

    evaluation = _evaluate(console, result.model, dataset)
    plots.save_prediction(dataset.test, 0, evaluation.probabilities[0], folder / "prediction.png")
    console.print(f"Prediction for a test image: {folder / 'prediction.png'}")
    card = model_card(result.model, dataset, evaluation, result)
    html = render_page(result, dataset, evaluation, card)
    (folder / "report.html").write_text(html, encoding="utf-8")
    console.print(f"Report: {folder / 'report.html'}")
    if not result.complete:
        raise Interrupted(
            f"Interrupted after {result.progress}; the model is not published. "
            f"To publish it as it is: digits export {folder / 'model.keras'}"
        )
    gate.check(evaluation.accuracy, _evaluate_baseline(console, output, dataset))
    _publish(console, result.model, dataset, card, output)
    if selected.hint:
        console.print(selected.hint)


def export(*, file: Path, data: Path | None, output: Path, gate: QualityGate) -> None:
    """Evaluate the model in a Keras file and publish it under `output`.

    Raise TrainingError for bad data, an unsuitable model, or a model that fails the gate.
    """
    console = _console()
    model = _load_model(file)
    dataset = _load(console, data)
    evaluation = _evaluate(console, model, dataset)
    gate.check(evaluation.accuracy, _evaluate_baseline(console, output, dataset))
    _publish(console, model, dataset, model_card(model, dataset, evaluation), output)


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


def _evaluate(console: Console, model: keras.Model, dataset: Dataset) -> Evaluation:
    evaluation = evaluate(model, dataset.test)
    console.print(
        f"Test accuracy: {evaluation.accuracy:.4f} on {len(dataset.test):,} digits, "
        f"calibration error {evaluation.calibration_error:.4f}"
    )
    if evaluation.refusals:
        shares = [scored.refused_share for scored in evaluation.refusals.negatives.values()]
        console.print(
            f"Refused as no digit: {evaluation.refusals.digits.refused_share:.2%} of the test digits, "
            f"{sum(shares) / len(shares):.0%} of {len(shares)} kinds of negatives"
        )
    return evaluation


def _evaluate_baseline(console: Console, output: Path, dataset: Dataset) -> Baseline | None:
    """Evaluate the served version on this test set; the accuracy in its model card may be that of another."""
    version = baseline_version(output)
    if version is None:
        return None
    try:
        probabilities = exports.predict_saved_model(version, dataset.test.pixels)
    except ModelError as error:
        console.print(f"No comparison with the served version: {error}")
        return None
    accuracy = float((probabilities.argmax(axis=1) == dataset.test.labels).mean())
    console.print(f"Accuracy of {version} on the same digits: {accuracy:.4f}")
    return Baseline(str(version), accuracy)


def _load_model(file: Path) -> keras.Model:
    if not file.is_file():
        raise ModelError(f"{file} does not exist")
    try:
        return with_flat_input(keras.saving.load_model(file, compile=False))
    except ModelError as error:
        raise ModelError(f"{file}: {error}") from error
    # Keras does not document its exceptions for damaged files and unknown layers.
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(f"{file} is not a model that Keras can load: {reason}") from error


def _publish(
    console: Console, model: keras.Model, dataset: Dataset, card: dict[str, Any], output: Path
) -> None:
    version = registry.publish(
        output, lambda directory: exports.write_artifact(model, card, dataset.test, directory)
    )
    console.print(f"Published: {version}")
