"""Training pipeline: data, fit, evaluation, report, quality gate, publication.

A model that was fitted elsewhere, for any task, skips the fit.
"""

import shlex
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import keras
import numpy as np
from rich.console import Console

from digit_core.artifact.task_card import DIGITS, READER_NAME, TaskCard
from digit_core.artifact.versions import ArtifactError, Version, check_writable
from digit_core.errors import how_to_install
from digit_training import (
    cards,
    classifier,
    conventions,
    device,
    loading,
    models,
    pictures,
    provenance,
    shipped,
    skew,
)
from digit_training import data as datasets
from digit_training.comparison import Answers, Sets, ask_served, compare, judging_sets
from digit_training.data import Dataset
from digit_training.errors import CardError, DataError, Interrupted, ModelError, NotPublishedError
from digit_training.evaluation import Evaluation, are_labels, evaluate
from digit_training.export import Origin, model_card, read_weights, write_artifact
from digit_training.fit import CropSource, TrainingData, fit
from digit_training.models import PROBABILITIES
from digit_training.pictures import LabelledPictures
from digit_training.publication import Target, digits_command, make_folder
from digit_training.quality_gate import (
    FEEDBACK,
    MAX_CALIBRATION_ERROR,
    MIN_AGREEMENT,
    TEST,
    Comparison,
    Comparisons,
    QualityGate,
)
from digit_training.reader_artifact import write_reader
from digit_training.recipes import RECIPES, FitRun, Recipe
from digit_training.report import render_page

if TYPE_CHECKING:
    from digit_training.feedback import Feedback

NOT_CHECKED = "not checked: no pictures"
"""What is known of the range and the output of a model without test pictures."""

_NO_CARD = " (the digits' card; see --task and --labels)"

MAX_NAMED = 5
"""Largest number of left-out pictures of a kind that are named."""


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
        judged = Comparisons(None, {TEST: Comparison(right, None)})
        target.gate.require([*target.gate.reasons(judged, DIGITS.labels)])
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


@dataclass(frozen=True)
class FeedbackSource:
    """Store of labelled pictures to learn from, and to test with."""

    url: str
    without_callers: Sequence[str] = ()
    """Names of the API keys whose labels are left out."""
    weight: int = 1
    """Number of times that a picture counts in training."""


@dataclass(frozen=True)
class ExportRun:
    """A model that was fitted elsewhere, and what judges it."""

    path: Path
    """Keras file, or with a signature the folder of a SavedModel."""
    signature: str | None
    card: Path | None
    """TOML file of the task card; without it and labels in `entries`, the task is that of the digits."""
    entries: cards.Document
    """Entries that replace those of the card."""
    data: Path | None = None
    """Test pictures; None selects the digits'."""
    report: Path | None = None
    """Folder for the report; None writes none."""


def train(target: Target, run: FitRun, source: FeedbackSource | None, crops: CropSource) -> None:
    """Fit a recipe, write the report and the Keras file, and publish the model.

    Raise TrainingError for bad data or a model that fails the gate, and ArtifactError for an invalid models
    folder. Raise Interrupted after Ctrl-C; report and Keras file then hold the incomplete fit, if an epoch
    has ended.
    """
    loading.check_backend()
    target.check(DIGITS)
    dataset = _load(run.data)
    recipe = RECIPES[run.recipe]
    chosen = (recipe.fine_tuning() if run.from_stable else recipe).with_changes(**run.overrides)
    if dataset.offline and "epochs" not in run.overrides:
        chosen = chosen.scaled_to(len(dataset.train))
    weight = source.weight if source else 1
    known = _read_feedback(source, DIGITS, recipe.build(), target.gate)
    labelled = None if known is None else _without_tested(known, dataset, weight)
    test = LabelledPictures.of(dataset.test, DIGITS, dataset.describe())
    sets = judging_sets(test, labelled.judging if labelled and labelled.held_out else None)
    served = _ask_served(target, sets)
    if run.from_stable:
        chosen = _start_from_served(target, served, chosen)
    folder = make_folder(run.report or Path("runs", datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")))
    repeated = labelled.train.repeat(weight) if labelled else None
    click.echo(f"Device: {device.name()}")
    if chosen.synthetic_fraction:
        click.echo("Drawing more digits, and pictures without one, which takes about a minute ...")
    try:
        backup = keras.callbacks.BackupAndRestore(folder / f"backup-{run.seed}")
        result = fit(chosen, TrainingData(dataset.train, crops, repeated), run.seed, [backup])
    except KeyboardInterrupt:
        raise Interrupted("Interrupted before the end of the first epoch; no model is saved.") from None
    result.model.save(folder / "model.keras")
    click.echo(f"Keras model: {folder / 'model.keras'}")

    evaluation, comparisons = _judge(result.model, sets, served)
    card = model_card(result.model, DIGITS, test.description, evaluation, result)
    card["command"] = run.command
    card["comparisons"] = comparisons.describe()
    card["started_from"] = comparisons.served if run.from_stable else None
    right = comparisons.of[FEEDBACK].right if FEEDBACK in comparisons.of else np.zeros(0, bool)
    card["feedback"] = labelled.describe(weight, right) if labelled else None
    reasons = [*target.gate.reasons(comparisons, DIGITS.labels, evaluation)]
    card["forced"] = reasons or None
    card = shipped.save(result.model, card, DIGITS.name, folder)
    _write_report(render_page(card, test, evaluation, comparisons, result), folder)
    if not result.complete:
        command = shlex.join([digits_command(), "export", str(folder / "model.keras"), *target.models_option])
        raise Interrupted(
            f"Interrupted after {result.progress}; the model is not published. "
            f"To go on, repeat the command with --report {folder}. To publish it as it is, run {command}"
        )
    target.gate.require(reasons)
    write = partial(write_artifact, result.model, DIGITS, card, dataset.test.images)
    target.publish(DIGITS.name, write, click.echo)


def export(target: Target, run: ExportRun, source: FeedbackSource | None) -> None:
    """Evaluate a model that was fitted elsewhere, and publish it under its task's name.

    Raise TrainingError for bad data, an unsuitable model or card, or a model that fails the gate, and
    ArtifactError for an invalid models folder.
    """
    loading.check_backend()
    network, task, convention, guesses = _load_model(run)
    with _naming_file_in_errors(run.path, "" if run.card or "labels" in run.entries else _NO_CARD):
        model = classifier.adapt(network, task, convention)
    low, high = task.range
    click.echo(f"Input: {classifier.format_shape(task.shape)}, black is {low:g} and white {high:g}")
    target.check(task, model.count_params())
    if run.report:
        check_writable(run.report)
    test = _load_test_pictures(run.data, task, target.gate.force)
    if test is None:
        click.echo(f"The model is not evaluated, since --data is missing. Range and output: {NOT_CHECKED}")
        if pixels := conventions.contradicted_range(network, task, convention):
            raise CardError(
                f"{run.card or run.path}: black, white and noise get equal answers in the range {low:g} to "
                f"{high:g}, and other ones in {pixels[0]:g} to {pixels[1]:g}: say "
                f"--range={pixels[0]:g},{pixels[1]:g}, or give --data, whose pictures decide"
            )
        described, warmup_images = model_card(model, task, None, None), np.zeros((1, *task.shape), np.uint8)
        described |= {"checked": NOT_CHECKED, "forced": ["published without --data"]}
    else:
        labelled = _read_feedback(source, task, model, target.gate)
        sets = judging_sets(test, labelled.judging if labelled and labelled.held_out else None)
        evaluation, comparisons = _judge(model, sets, _ask_served(target, sets))
        reasons = []
        if not task.is_multi_label:
            minimum = target.gate.minimum(len(task.labels))
            trials = conventions.try_all(network, task, convention, test.examples, minimum)
            if contradiction := conventions.contradiction(trials, minimum):
                reasons = [f"{contradiction}{guesses} (see --force)"]
            guesses = (
                f"; of {len(trials)} conventions (ranges, orders of channels, turned and inverted pictures), "
                f"none that reaches it is better beyond chance{guesses}"
            )
        for difference in skew.describe_other_answers(model, test, evaluation.probabilities):
            click.echo(difference)
        reasons += target.gate.reasons(comparisons, task.labels, evaluation, guesses)
        described, warmup_images = model_card(model, task, test.description, evaluation), test.examples.images
        described |= {"comparisons": comparisons.describe(), "forced": reasons or None}
        described["checked"] = f"on {len(test):,} pictures"
        if run.report and task.is_multi_label:
            click.echo("A multi-label task has no report.")
        elif run.report:
            run.report.mkdir(parents=True, exist_ok=True)
            _write_report(render_page(described, test, evaluation, comparisons), run.report)
        target.gate.require(reasons)
    described["source"] = provenance.describe(run.path)
    target.publish(task.name, partial(write_artifact, model, task, described, warmup_images), click.echo)


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
        click.echo(
            "MNIST cannot be downloaded (offline?): the bundled sample of 5,000 digits takes its place. Copy "
            "Keras's mnist.npz here, and say --data mnist.npz, for all 70,000."
        )
    kind = "the original MNIST" if dataset.canonical else "not the original MNIST"
    sizes = f"{len(dataset.train):,} training and {len(dataset.test):,} test digits"
    click.echo(f"Data: {sizes} from {dataset.source} ({kind})")
    return dataset


def _load_test_pictures(data: Path | None, task: TaskCard, force: bool) -> LabelledPictures | None:
    """Return the pictures of the evaluation; None if there are none and `force` allows it."""
    if task.reads_numbers and (data is None or datasets.has_training_set(data)):
        dataset = _load(data)
        return LabelledPictures.of(dataset.test, task, dataset.describe())
    if data is None:
        if force:
            return None
        raise DataError("--data is needed to evaluate the model; --force publishes it without an evaluation")
    with _console().status("Reading pictures"):
        test = pictures.load(data, task)
    click.echo(f"Data: {len(test):,} pictures in {data}")
    _print_left_out("unreadable", test.unreadable)
    _print_left_out("refused in serving", test.refused)
    return test


def _print_left_out(reason: str, names: Sequence[str]) -> None:
    if names:
        more = len(names) - MAX_NAMED
        rest = f"; and {more:,} more" if more > 0 else ""
        click.echo(f"Left out as {reason}: {len(names):,} ({'; '.join(names[:MAX_NAMED])}{rest})")


def _read_feedback(
    source: FeedbackSource | None, task: TaskCard, model: keras.Model, gate: QualityGate
) -> "Feedback | None":
    """Return the feedback that the model can answer; None without a store.

    Report how many labels agree with the served answers. Raise NotPublishedError if too few do.
    """
    if source is None:
        return None
    try:
        from digit_training import feedback
    except ImportError as error:
        raise DataError(f"--feedback needs SQLAlchemy; {how_to_install('training,feedback')}") from error
    stored = feedback.load(source.url, task, source.without_callers)
    by_caller = stored.agreements.items() if len(stored.agreements) > 1 else ()
    for caller, agreement in [("all callers", stored.agreement), *by_caller]:
        click.echo(
            f"Labels that agree with the served answers, {caller or 'without an API key'}: "
            f"{agreement.correct:,} of {agreement.count:,}"
        )
    for caller, effect in stored.left_out.items():
        click.echo(
            f"Without the votes of {caller}: {effect.relabelled:,} pictures have another label, "
            f"{effect.lost:,} have none any more, and {effect.gained:,} have one on which callers disagreed"
        )
    for count, reason in (
        (stored.conflicts, "less than two thirds of their callers agree"),
        (stored.unusable, "the card can't prepare them, or lacks their label"),
    ):
        if count:
            click.echo(f"Left out of the feedback: {count:,} ({reason})")
    gate.check_agreement(stored.agreement)
    known = stored if models.has_is_digit(model) else stored.without_negatives()
    if count := len(stored) - len(known):
        reason = "none of the labels, which this model never answers"
        click.echo(f"Left out of the feedback: {count:,} ({reason})")
    return known


def _without_tested(known: "Feedback", dataset: Dataset, weight: int) -> "Feedback":
    """Leave out the pictures that test the model. Raise NotPublishedError if nothing is left to learn."""
    usable = known.without_tested(np.concatenate((dataset.test.images, datasets.read_hard_pictures().images)))
    if count := len(known) - len(usable):
        click.echo(f"Left out of the feedback: {count:,} (also in the data that test the model)")
    if not usable.train:
        raise NotPublishedError(f"not published: {usable.source} has no labelled digits to learn from")
    click.echo(
        f"Feedback: {len(usable.train):,} pictures of {usable.source} to learn from, each "
        f"{weight} times, and {len(usable.held_out):,} to test with"
    )
    return usable


def _ask_served(target: Target, sets: Sets) -> tuple[Version, Answers] | None:
    """Return the stable version and its answers; None without one, or if `force` allows that it fails.

    Raise NotPublishedError if the held-out feedback is too small to show the gain that is required.
    """
    try:
        version = target.models.labelled(sets[TEST].task.name)
        if version is None:
            return None
        target.gate.check_held_out(len(sets.get(FEEDBACK, ())))
        return version, ask_served(version, sets)
    except (ArtifactError, DataError, ModelError) as error:
        if not target.gate.force:
            raise ModelError(
                f"the model cannot be compared with the served version: {error}; --force publishes it anyway"
            ) from error
        click.echo(f"The model is not compared with the served version: {error}")
        return None


def _start_from_served(target: Target, served: tuple[Version, Answers] | None, recipe: Recipe) -> Recipe:
    """Return the recipe that starts from the served version. Raise ModelError if it cannot."""
    if served is None:
        folder = target.models.root / DIGITS.name
        raise ModelError(f"{folder} has no stable version to start from; train the first one without --from")
    version, _ = served
    weights = read_weights(version, recipe.build())
    click.echo(f"Starting from {version.path}, epochs: {recipe.epochs}")
    return recipe.starting_from(weights)


def _load_model(run: ExportRun) -> tuple[keras.Model, TaskCard, classifier.Convention, str]:
    """Return the model, its completed card, what the published version converts, and what was guessed."""
    path, card = run.path, run.card
    with _naming_file_in_errors(path):
        model = loading.load_saved_model(path, run.signature) if run.signature else loading.load_keras(path)
    has_card = card or "labels" in run.entries
    with _naming_file_in_errors(card or path, "" if has_card else _NO_CARD):
        document = cards.named_after(path) if has_card else cards.of_digits(model)
        if card:
            document = cards.read(card)
        document = cards.with_entries(document, run.entries)
        task, convention = cards.complete(document, model)
    stated = document if has_card else run.entries
    (low, high), color = task.range, task.prepare.color
    guesses = [
        (
            "range" not in stated.get("input", {}),
            f"values of {low:g} to {high:g}, as the first layers suggest",
        ),
        (color == "rgb" and "color" not in stated.get("prepare", {}), "red as the first channel"),
        ("output" not in stated, "probabilities as the output"),
    ]
    guessed = [words for is_guess, words in guesses if is_guess]
    return model, task, convention, f"; guessed: {'; '.join(guessed)}" if guessed else ""


@contextmanager
def _naming_file_in_errors(path: Path, hint: str = "") -> Iterator[None]:
    """Name the file in the message of a CardError or ModelError."""
    try:
        yield
    except (CardError, ModelError) as error:
        raise type(error)(f"{path}: {error}{hint}") from error


def _judge(
    model: keras.Model, sets: Sets, served: tuple[Version, Answers] | None
) -> tuple[Evaluation, Comparisons]:
    """Evaluate the model on the test set, compare it with the served version on all sets, and report both."""
    test, task = sets[TEST], sets[TEST].task
    evaluation = evaluate(model, test.examples, task)
    if scores := evaluation.scores:
        click.echo(
            f"Test mAP: {scores.mean_average_precision:.4f}, precision {scores.precision:.4f}, recall "
            f"{scores.recall:.4f} (means over {len(task.labels)} labels) on {len(test):,} pictures"
        )
    else:
        click.echo(
            f"Test accuracy: {evaluation.accuracy:.4f} on {len(test):,} pictures, "
            f"calibration error {evaluation.calibration_error:.4f}"
        )
    confidence = float(evaluation.probabilities.max(axis=1).mean())
    if evaluation.accuracy - confidence > MAX_CALIBRATION_ERROR and not evaluation.scores:
        click.echo(
            f"The mean confidence is {confidence:.2f}, less than the accuracy: callers who refuse unsure "
            "answers lose right ones"
        )
    if task.refuse_below:
        refused = float((evaluation.probabilities.max(axis=1) < task.refuse_below).mean())
        click.echo(f"Refused as unsure: {refused:.2%} of the test pictures")
    if evaluation.refusals:
        shares = [scored.refused_share for scored in evaluation.refusals.negatives.values()]
        click.echo(
            f"Refused as no digit: {evaluation.refusals.digits.refused_share:.2%} of the test digits, "
            f"{sum(shares) / len(shares):.0%} of {len(shares)} kinds of negatives"
        )
    comparisons = compare(model, sets, evaluation, served)
    for name, comparison in comparisons.of.items():
        if served or name != TEST:
            accuracy = comparison.served_accuracy
            click.echo(
                f"Accuracy on {name}, {len(comparison):,} pictures: {comparison.accuracy:.4f}"
                + (f"; that of {comparisons.served}: {accuracy:.4f}" if served else "")
            )
    if (feedback := comparisons.of.get(FEEDBACK)) and feedback.gain < 0:
        click.echo(
            f"Warning: the accuracy on {FEEDBACK} falls from {feedback.served_accuracy:.4f} to "
            f"{feedback.accuracy:.4f}. Chance may explain it on {len(feedback):,} pictures: look at those "
            "that are lost before you promote the version"
        )
    if feedback and feedback.accuracy < MIN_AGREEMENT:
        wrong, count = int((~feedback.right).sum()), len(feedback)
        click.echo(
            f"Warning: {wrong:,} of {count:,} held-out labels contradict the model. Look at them with "
            "digits feedback export, and leave out callers who label wrongly (--without-caller)"
        )
    return evaluation, comparisons


def _write_report(page: str, folder: Path) -> None:
    (folder / "report.html").write_text(page, encoding="utf-8")
    click.echo(f"Report: {folder / 'report.html'}")
