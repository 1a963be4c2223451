"""Training pipeline: data, fit, evaluation, report, quality gate, export.

A model that was fitted elsewhere, for any task, skips the fit.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from digit_client import DIGITS, TaskCard
from digit_training import artifact, cards, classifier, device, feedback, models, pictures, registry
from digit_training import data as datasets
from digit_training import export as exports
from digit_training.callbacks import FitProgress
from digit_training.comparison import Comparisons, compare
from digit_training.data import Dataset, Examples
from digit_training.errors import CardError, DataError, Interrupted, ModelError, NotPublishedError
from digit_training.evaluation import Evaluation, evaluate
from digit_training.export import model_card
from digit_training.fit import FitResult, fit
from digit_training.pictures import LabelledPictures
from digit_training.quality_gate import QualityGate, baseline_version
from digit_training.recipes import RECIPES, Overrides, Recipe
from digit_training.report import plots
from digit_training.report.page import render_page

MAX_NAMED = 5
"""Most left-out pictures that are named, of each kind."""


@dataclass(frozen=True)
class _Start:
    """Version whose weights a fit starts from."""

    version: Path
    weights: list[NDArray[np.float32]]


def train(
    *,
    recipe: str,
    overrides: Overrides,
    seed: int,
    from_stable: bool,
    data: Path | None,
    feedback_url: str | None,
    feedback_weight: int,
    output: Path,
    report: Path | None,
    gate: QualityGate,
) -> None:
    """Fit a recipe, write the report and the Keras file into `report`, and publish the model under `output`.

    `feedback_url` is that of a store, whose training inputs count `feedback_weight` times each. With
    `from_stable`, the fit starts from the served version. None selects for `data` the default source (see
    data.load), and for `report` a folder named by the time. Raise TrainingError for bad data or a model that
    fails the gate. Raise Interrupted after Ctrl-C; report and Keras file then hold the incomplete fit, if an
    epoch has ended.
    """
    console = _console()
    dataset = _load(console, data)
    selected = RECIPES[recipe]
    labelled = None
    if feedback_url:
        labelled = _load_feedback(console, feedback_url, feedback_weight, selected, dataset)
    if labelled and baseline_version(output):
        gate.check_held_out(len(labelled.held_out))
    start = _load_start(output, selected) if from_stable else None
    folder = report or Path("runs") / datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    plots.save_samples(dataset.train, folder / "digits.png")
    console.print(f"Sample digits: {folder / 'digits.png'}")

    selected = (selected.fine_tuning() if start else selected).with_overrides(overrides)
    if dataset.offline and not overrides.epochs:
        selected = selected.scaled_to(len(dataset.train))
    if start:
        console.print(f"Starting from {start.version}, epochs: {selected.epochs}")
    train_only = labelled.train.repeat(feedback_weight) if labelled else None
    result = _fit(console, selected, dataset, seed, train_only, start.weights if start else None)
    result.model.save(folder / "model.keras")
    console.print(f"Keras model: {folder / 'model.keras'}")

    test_pictures = _test_digits(dataset)
    evaluation = _evaluate(console, result.model, DIGITS, test_pictures)
    plots.save_prediction(dataset.test, 0, evaluation.probabilities[0], folder / "prediction.png")
    console.print(f"Prediction for a test image: {folder / 'prediction.png'}")
    held_out = labelled.held_out if labelled else None
    comparisons = _compare(console, result.model, DIGITS, test_pictures, evaluation, output, held_out)
    card = model_card(result.model, DIGITS, test_pictures.description, evaluation, result, comparisons)
    card["started_from"] = str(start.version) if start else None
    right = comparisons.feedback.right if comparisons.feedback else np.zeros(0, bool)
    card["feedback"] = labelled.describe(feedback_weight, right) if labelled else None
    page = render_page(DIGITS, card, test_pictures, evaluation, comparisons, result, dataset.train)
    _write_report(console, page, folder)
    if not result.complete:
        raise Interrupted(
            f"Interrupted after {result.progress}; the model is not published. "
            f"To publish it as it is: digits export {folder / 'model.keras'} --output {output}"
        )
    gate.check(comparisons)
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
    comparisons = _compare(console, model, task, test_pictures, evaluation, folder)
    description = model_card(model, task, test_pictures.description, evaluation, comparisons=comparisons)
    if report:
        report.mkdir(parents=True, exist_ok=True)
        _write_report(console, render_page(task, description, test_pictures, evaluation, comparisons), report)
    gate.check(comparisons)
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


def _load_feedback(
    console: Console, url: str, weight: int, recipe: Recipe, dataset: Dataset
) -> feedback.Feedback:
    """Return the feedback that a network of this recipe can learn from, without what tests it."""
    stored = feedback.load(url)
    known = stored if models.has_is_digit(recipe.build()) else stored.without_negatives()
    usable = known.without_tested(np.concatenate((dataset.test.images, datasets.read_hard_pictures().images)))
    for count, reason in (
        (len(stored) - len(known), "no digits, for which this network has no output"),
        (len(known) - len(usable), "also in the data that test the model"),
    ):
        if count:
            console.print(f"Left out of the feedback: {count:,} ({reason})")
    if not len(usable.train):
        raise NotPublishedError(f"not published: {stored.source} has no labelled digits to learn from")
    console.print(
        f"Feedback: {len(usable.train):,} inputs of {usable.source} to learn from, each {weight} times, "
        f"and {len(usable.held_out):,} to test with"
    )
    return usable


def _load_start(output: Path, recipe: Recipe) -> _Start:
    """Return the weights of the served version. Raise ModelError if the recipe cannot start from them."""
    if recipe.networks > 1:
        raise ModelError("--from stable starts one network: this recipe has several")
    version = baseline_version(output)
    if version is None:
        raise ModelError(f"{output} has no version to start from; train the first without --from")
    return _Start(version, artifact.read_weights(version, recipe.build()))


def _fit(
    console: Console,
    recipe: Recipe,
    dataset: Dataset,
    seed: int,
    train_only: Examples | None,
    weights: Sequence[NDArray[np.float32]] | None,
) -> FitResult:
    console.print(f"Device: {device.name()}")
    try:
        with closing(FitProgress(console, recipe.networks)) as progress:
            return fit(recipe, dataset.train, seed, [progress], feedback=train_only, weights=weights)
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


def _compare(
    console: Console,
    model: keras.Model,
    task: TaskCard,
    test_pictures: LabelledPictures,
    evaluation: Evaluation,
    output: Path,
    held_out: Examples | None = None,
) -> Comparisons:
    """Compare with the served version on these pictures: its model card may be about others."""

    def compare_with(version: Path | None) -> Comparisons:
        return compare(model, task, test_pictures.examples, evaluation, version, held_out)

    try:
        comparisons = compare_with(baseline_version(output))
    except ModelError as error:
        console.print(f"No comparison with the served version: {error}")
        comparisons = compare_with(None)
    if comparisons.served:
        accuracy = comparisons.test.served_accuracy
        console.print(f"Accuracy of {comparisons.served} on the same pictures: {accuracy:.4f}")
    for comparison in (comparisons.feedback, comparisons.hard_pictures):
        if comparison:
            accuracy = comparison.served_accuracy
            served = f"; that of {comparisons.served}: {accuracy:.4f}" if comparisons.served else ""
            console.print(
                f"Accuracy on {comparison.pictures}, {len(comparison):,} pictures: "
                f"{comparison.accuracy:.4f}{served}"
            )
    return comparisons


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
