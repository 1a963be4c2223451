"""Training pipeline: data, fit, evaluation, report, quality gate, export.

A model that was fitted elsewhere, for any task, skips the fit.
"""

import shlex
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import keras
import numpy as np
from rich.console import Console

from digit_core.artifact.task_card import DIGITS, READER_NAME, TaskCard
from digit_core.artifact.versions import ArtifactError
from digit_training import cards, classifier, device, models, pictures, provenance, shipped, skew
from digit_training import data as datasets
from digit_training.callbacks import FitProgress
from digit_training.comparison import (
    Comparison,
    Comparisons,
    EvaluationSets,
    ServedAnswers,
    ask_served,
    compare,
)
from digit_training.data import Dataset, FeedbackSource
from digit_training.errors import CardError, DataError, Interrupted, ModelError, NotPublishedError
from digit_training.evaluation import Evaluation, are_labels, evaluate
from digit_training.export import Origin, model_card, read_weights, write_artifact
from digit_training.fit import fit
from digit_training.models import PROBABILITIES
from digit_training.pictures import LabelledPictures
from digit_training.publication import Target, digits_command
from digit_training.quality_gate import MIN_AGREEMENT, QualityGate
from digit_training.reader.export import write_reader
from digit_training.recipes import RECIPES, Overrides, Recipe, fit_command
from digit_training.report import render_page

if TYPE_CHECKING:
    from digit_training.feedback import Feedback

_KERAS_HABITS = {
    "interpolation": 'scales down by default without averaging (interpolation = "bilinear")',
    "alpha": 'ignores transparency (alpha = "ignore")',
    "exif": "does not turn photographs as EXIF says (exif = false)",
}
"""Preparation by Keras's loader, by the entry of a card that changes it in serving."""

MAX_NAMED = 5
"""Most left-out pictures that are named, of each kind."""


@dataclass(frozen=True)
class TrainingRun:
    """Data and hyper-parameters of a fit."""

    recipe: str
    overrides: Overrides
    seed: int
    data: Path | None = None
    """MNIST; None selects the default source (see data.load)."""
    feedback: FeedbackSource | None = None
    """Labelled answers, whose training inputs count `feedback_weight` times each."""
    feedback_weight: int = 1
    from_stable: bool = False
    """True to start from the weights of the stable version."""
    report: Path | None = None
    """Folder for the report and the Keras file; None selects one named by the time."""

    @property
    def command(self) -> str:
        """Return the command of this fit, without its paths."""
        network = "--model perceptron" if self.recipe == "perceptron" else f"--recipe {self.recipe}"
        return fit_command(network, self.seed, self.from_stable, self.overrides)

    def recipe_for(self, dataset: Dataset) -> Recipe:
        """Return the recipe with its overrides, with as many steps on the bundled sample as on MNIST."""
        recipe = RECIPES[self.recipe]
        recipe = (recipe.fine_tuning() if self.from_stable else recipe).with_overrides(self.overrides)
        is_scaled = dataset.offline and not self.overrides.epochs
        return recipe.scaled_to(len(dataset.train)) if is_scaled else recipe


@dataclass(frozen=True)
class ModelSource:
    """Model that was fitted elsewhere, its card and its test pictures."""

    path: Path
    """Keras file, or with a signature the folder of a SavedModel."""
    signature: str | None = None
    card: Path | None = None
    """TOML file of the task card."""
    entries: cards.Document = field(default_factory=dict)
    """Entries in place of the card's; without a card and labels, the task is that of the digits."""
    data: Path | None = None
    """Test pictures; None selects the digits' default source."""
    feedback: FeedbackSource | None = None
    """Labelled answers, whose held-out inputs test the model, too."""
    report: Path | None = None


def publish_shipped(target: Target, names: Collection[str] = (DIGITS.name, READER_NAME)) -> None:
    """Publish the networks of these names that ship with this package, where the models folder has none.

    The classifier has to pass the quality gate on the test digits of the bundled sample; the reader has
    passed its own at its fit, on pages that are not shipped. Raise TrainingError or ArtifactError.
    """
    missing = [name for name in names if not target.models.versions(name)]
    if DIGITS.name in missing:
        target.check(DIGITS)
        model, card = shipped.load_classifier(), _shipped_card(DIGITS.name)
        digits = datasets.load(datasets.SAMPLE).test
        answers = classifier.predict(model, digits.images, DIGITS)[PROBABILITIES]
        right = are_labels(answers, digits.labels, DIGITS)
        target.gate.check(Comparisons(None, Comparison("the bundled test digits", right, None)))
        target.publish(DIGITS.name, partial(write_artifact, model, DIGITS, card, digits.images), click.echo)
        click.echo(f"It was fitted before, by `{card['command']}`; test accuracy {card['accuracy']:.4f}.")
    if READER_NAME in missing:
        card = _shipped_card(READER_NAME)
        target.publish(READER_NAME, partial(write_reader, shipped.load_detector(), card), click.echo)


def _shipped_card(name: str) -> dict[str, Any]:
    """Return the card of a shipped network, which is published here and was fitted elsewhere."""
    card = shipped.read_card(name)
    published = {"origin": Origin.SHIPPED, "created": datetime.now(UTC).isoformat(timespec="seconds")}
    return card | published | {"fitted": card["created"]}


def train(run: TrainingRun, target: Target) -> None:
    """Fit a recipe, write the report and the Keras file, and publish the model.

    Raise TrainingError for bad data or a model that fails the gate, and ArtifactError for an invalid models
    folder. Raise Interrupted after Ctrl-C; report and Keras file then hold the incomplete fit, if an epoch
    has ended.
    """
    target.check(DIGITS)
    dataset = _load(run.data)
    recipe = run.recipe_for(dataset)
    labelled = _load_feedback(run, target.gate, dataset)
    sets = EvaluationSets.of(_test_digits(dataset, DIGITS), labelled.held_out if labelled else None)
    served = _ask_served(target, sets)
    if run.from_stable:
        recipe = _start_from_served(target, served, recipe)
    folder = run.report or Path("runs") / datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    repeated = labelled.train.repeat(run.feedback_weight) if labelled else None
    click.echo(f"Device: {device.name()}")
    if recipe.synthetic_fraction:
        click.echo("Drawing more digits, and pictures without one, which takes about a minute ...")
    try:
        with closing(FitProgress(_console(), recipe.networks)) as progress:
            backup = folder / "backup"
            result = fit(recipe, dataset.train, run.seed, [progress], feedback=repeated, backup=backup)
    except KeyboardInterrupt:
        raise Interrupted("Interrupted before the end of the first epoch; no model is saved.") from None
    result.model.save(folder / "model.keras")
    click.echo(f"Keras model: {folder / 'model.keras'}")

    evaluation = _evaluate(result.model, sets)
    comparisons = _compare(result.model, sets, evaluation, served)
    card = model_card(result.model, DIGITS, sets.test.description, evaluation, result)
    card["command"] = run.command
    card["comparisons"] = comparisons.describe()
    card["started_from"] = comparisons.served if run.from_stable else None
    right = comparisons.feedback.right if comparisons.feedback else np.zeros(0, bool)
    card["feedback"] = labelled.describe(run.feedback_weight, right) if labelled else None
    card = shipped.save(result.model, card, DIGITS.name, folder)
    _write_report(render_page(card, sets.test, evaluation, comparisons, result), folder)
    if not result.complete:
        command = shlex.join([digits_command(), "export", str(folder / "model.keras"), *target.models_option])
        raise Interrupted(
            f"Interrupted after {result.progress}; the model is not published. "
            f"To go on: the same command with --report {folder}. To publish it as it is: {command}"
        )
    target.gate.check(comparisons)
    write = partial(write_artifact, result.model, DIGITS, card, dataset.test.images)
    target.publish(DIGITS.name, write, click.echo)


def export(source: ModelSource, target: Target) -> None:
    """Evaluate a model that was fitted elsewhere, and publish it under its task's name.

    Raise TrainingError for bad data, an unsuitable model or card, or a model that fails the gate, and
    ArtifactError for an invalid models folder.
    """
    classifier.check_backend()
    model, task = _load_model(source)
    low, high = task.range
    click.echo(f"Input: {classifier.format_shape(task.shape)}, black is {low:g} and white {high:g}")
    target.check(task)
    test_pictures = _load_test_pictures(source.data, task, target.gate.force)
    if test_pictures is None:
        click.echo("Without --data the model is not evaluated.")
        card, warmup_images = model_card(model, task, None, None), np.zeros((1, *task.shape), np.uint8)
    else:
        labelled = _read_feedback(source.feedback, task, model, target.gate)
        sets = EvaluationSets.of(test_pictures, labelled.held_out if labelled else None)
        served = _ask_served(target, sets)
        evaluation = _evaluate(model, sets)
        others, count = skew.count_other_answers(model, test_pictures, evaluation.probabilities)
        for entry, number in others.items():
            click.echo(
                f"image_dataset_from_directory {_KERAS_HABITS[entry]}: so, {number} of {count} pictures get "
                "another answer. If the model was trained so, say it under [prepare] of the card"
            )
        comparisons = _compare(model, sets, evaluation, served)
        card = model_card(model, task, test_pictures.description, evaluation)
        card["comparisons"] = comparisons.describe()
        if source.report and task.is_multi_label:
            click.echo("A multi-label task has no report.")
        elif source.report:
            source.report.mkdir(parents=True, exist_ok=True)
            _write_report(render_page(card, test_pictures, evaluation, comparisons), source.report)
        target.gate.check(comparisons, evaluation.scores, len(task.labels))
        warmup_images = test_pictures.examples.images
    card["source"] = provenance.describe(source.path)
    target.publish(task.name, partial(write_artifact, model, task, card, warmup_images), click.echo)


def _console() -> Console:
    return Console(highlight=False, markup=False, soft_wrap=True)


def _load(data: Path | None) -> Dataset:
    if data and pictures.has_label_folders(data):
        with _console().status("Reading pictures"):
            dataset, loaded = pictures.load_digits(data)
        _print_left_out("unreadable", loaded.unreadable)
        _print_left_out("without a digit", loaded.refused)
    else:
        with _console().status(f"Reading {data or 'MNIST (the first time, a download of 11 MB)'}"):
            dataset = datasets.load(data)
    if dataset.offline:
        click.echo("MNIST cannot be downloaded (offline?). Using the bundled sample of 5,000 digits.")
    kind = "the original MNIST" if dataset.canonical else "not the original MNIST"
    sizes = f"{len(dataset.train):,} training and {len(dataset.test):,} test digits"
    click.echo(f"Data: {sizes} from {dataset.source} ({kind})")
    return dataset


def _read_feedback(
    source: FeedbackSource | None, task: TaskCard, model: keras.Model, gate: QualityGate
) -> "Feedback | None":
    """Return the feedback that the model can answer; None without a source.

    Report how many labels agree with the served answers. Raise NotPublishedError if too few do.
    """
    if source is None:
        return None
    try:
        from digit_training import feedback
    except ImportError as error:
        raise DataError("--feedback needs SQLAlchemy: pip install '.[training,feedback]'") from error
    stored = feedback.load(source.url, task, source.without_callers)
    for caller, agreement in [("all callers", stored.agreement), *stored.agreements.items()]:
        click.echo(
            f"Labels that agree with the served answers, {caller or 'without an API key'}: "
            f"{agreement.correct:,} of {agreement.count:,}"
        )
    if stored.conflicts:
        click.echo(f"Left out of the feedback: {stored.conflicts:,} (callers labelled them differently)")
    gate.check_agreement(stored.agreement)
    known = stored if models.has_is_digit(model) else stored.without_negatives()
    if count := len(stored) - len(known):
        reason = "none of the labels, which this model never answers"
        click.echo(f"Left out of the feedback: {count:,} ({reason})")
    return known


def _load_feedback(run: TrainingRun, gate: QualityGate, dataset: Dataset) -> "Feedback | None":
    """Return the feedback that the run's network can learn from, without what tests it.

    Raise NotPublishedError if there is nothing to learn, and as `_read_feedback` does.
    """
    known = _read_feedback(run.feedback, DIGITS, RECIPES[run.recipe].build(), gate)
    if known is None:
        return None
    usable = known.without_tested(np.concatenate((dataset.test.images, datasets.read_hard_pictures().images)))
    if count := len(known) - len(usable):
        click.echo(f"Left out of the feedback: {count:,} (also in the data that test the model)")
    if not len(usable.train):
        raise NotPublishedError(f"not published: {usable.source} has no labelled digits to learn from")
    click.echo(
        f"Feedback: {len(usable.train):,} inputs of {usable.source} to learn from, each "
        f"{run.feedback_weight} times, and {len(usable.held_out):,} to test with"
    )
    return usable


def _ask_served(target: Target, sets: EvaluationSets) -> ServedAnswers | None:
    """Return the answers of the stable version; None without one, or if `force` allows that it fails.

    Raise NotPublishedError if the held-out feedback is too small to show the gain that is required.
    """
    try:
        version = target.models.labelled(sets.task.name)
        if version is None:
            return None
        target.gate.check_held_out(len(sets.few.get("feedback", ())))
        return ask_served(version, sets)
    except (ArtifactError, DataError, ModelError) as error:
        if not target.gate.force:
            raise ModelError(
                f"no comparison with the served version: {error}; --force publishes without"
            ) from error
        click.echo(f"No comparison with the served version: {error}")
        return None


def _start_from_served(target: Target, served: ServedAnswers | None, recipe: Recipe) -> Recipe:
    """Return the recipe that starts from the served version. Raise ModelError if it cannot."""
    if recipe.networks > 1:
        raise ModelError("--from stable starts one network: this recipe has several")
    if served is None:
        folder = target.models.root / DIGITS.name
        raise ModelError(f"{folder} has no stable version to start from; train the first without --from")
    weights = read_weights(served.version, recipe.build())
    click.echo(f"Starting from {served.version.path}, epochs: {recipe.epochs}")
    return recipe.starting_from(weights)


def _load_model(source: ModelSource) -> tuple[keras.Model, TaskCard]:
    """Return the model, with the input of its card, and the card."""
    path, signature = source.path, source.signature
    with _naming_file_in_errors(path):
        model = classifier.load_saved_model(path, signature) if signature else classifier.load_keras(path)
    has_card = source.card or "labels" in source.entries
    hint = "" if has_card else " (the digits' card; see --task and --labels)"
    with _naming_file_in_errors(source.card or path, hint):
        document = cards.named_after(path) if has_card else cards.of_digits(model)
        if source.card:
            document = cards.read(source.card)
        task, convention = cards.complete(cards.with_entries(document, source.entries), model)
    with _naming_file_in_errors(path, hint):
        return classifier.adapt(model, task, convention), task


@contextmanager
def _naming_file_in_errors(path: Path, hint: str = "") -> Iterator[None]:
    """Name the file in the message of a CardError or ModelError."""
    try:
        yield
    except (CardError, ModelError) as error:
        raise type(error)(f"{path}: {error}{hint}") from error


def _load_test_pictures(data: Path | None, task: TaskCard, force: bool) -> LabelledPictures | None:
    """Return the pictures of the evaluation; None if there are none and `force` allows it."""
    if task.reads_numbers and (data is None or datasets.has_training_set(data)):
        return _test_digits(_load(data), task)
    if data is None:
        if force:
            return None
        raise DataError("--data is needed to evaluate the model; --force publishes it without")
    with _console().status("Reading pictures"):
        test_pictures = pictures.load(data, task)
    click.echo(f"Data: {len(test_pictures):,} pictures in {data}")
    _print_left_out("unreadable", test_pictures.unreadable)
    _print_left_out("refused in serving", test_pictures.refused)
    return test_pictures


def _print_left_out(reason: str, names: Sequence[str]) -> None:
    if names:
        more = len(names) - MAX_NAMED
        rest = f"; and {more:,} more" if more > 0 else ""
        click.echo(f"Left out as {reason}: {len(names):,} ({'; '.join(names[:MAX_NAMED])}{rest})")


def _test_digits(dataset: Dataset, task: TaskCard) -> LabelledPictures:
    names = [f"index {index}" for index in range(len(dataset.test))]
    return LabelledPictures(dataset.test, dataset.describe(), names, task=task)


def _evaluate(model: keras.Model, sets: EvaluationSets) -> Evaluation:
    evaluation = evaluate(model, sets.test.examples, sets.task)
    if scores := evaluation.scores:
        click.echo(
            f"Test mAP: {scores.mean_average_precision:.4f}, precision {scores.precision:.4f}, recall "
            f"{scores.recall:.4f} (means over {len(sets.task.labels)} labels) on {len(sets.test):,} pictures"
        )
        return evaluation
    click.echo(
        f"Test accuracy: {evaluation.accuracy:.4f} on {len(sets.test):,} pictures, "
        f"calibration error {evaluation.calibration_error:.4f}"
    )
    if below := sets.task.refuse_below:
        refused = float((evaluation.probabilities.max(axis=1) < below).mean())
        click.echo(f"Refused as unsure: {refused:.2%} of the test pictures")
    if evaluation.refusals:
        shares = [scored.refused_share for scored in evaluation.refusals.negatives.values()]
        click.echo(
            f"Refused as no digit: {evaluation.refusals.digits.refused_share:.2%} of the test digits, "
            f"{sum(shares) / len(shares):.0%} of {len(shares)} kinds of negatives"
        )
    return evaluation


def _compare(
    model: keras.Model,
    sets: EvaluationSets,
    evaluation: Evaluation,
    served: ServedAnswers | None,
) -> Comparisons:
    comparisons = compare(model, sets, evaluation, served)
    for comparison in comparisons.all if served else comparisons.all[1:]:
        accuracy = comparison.served_accuracy
        click.echo(
            f"Accuracy on {comparison.pictures}, {len(comparison):,} pictures: {comparison.accuracy:.4f}"
            + (f"; that of {comparisons.served}: {accuracy:.4f}" if served else "")
        )
    if (feedback := comparisons.feedback) and feedback.accuracy < MIN_AGREEMENT:
        wrong, count = int((~feedback.right).sum()), len(feedback)
        click.echo(
            f"Warning: {wrong:,} of {count:,} held-out labels contradict the model. Look at them with "
            "digits feedback export, and leave out who labels wrongly (--without-caller)"
        )
    return comparisons


def _write_report(page: str, folder: Path) -> None:
    (folder / "report.html").write_text(page, encoding="utf-8")
    click.echo(f"Report: {folder / 'report.html'}")
