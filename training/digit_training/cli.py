"""Commands `digits train` and `digits export`.

The imports of Keras and TensorFlow are deferred, so that `--help` and `--if-needed` answer at once.
"""

import functools
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from click.core import ParameterSource

from digit_core.artifact.task_card import DIGITS, READER_NAME, Fit
from digit_core.artifact.versions import ArtifactError
from digit_training.errors import Interrupted, NotPublishedError, TrainingError

if TYPE_CHECKING:
    from digit_training.pipeline import FeedbackSource
    from digit_training.publication import Target

NOT_PUBLISHED_STATUS = 4
"""Exit status of a model that the quality gate refuses, which a scheduled job can take for a success."""

INTERRUPTED_STATUS = 130
"""Exit status after Ctrl-C, 128 + SIGINT, as in shells."""

TERMINATED_STATUS = 143
"""Exit status after SIGTERM, 128 + SIGTERM."""

ENTRIES = ("name", "labels", "output", "output_name", "refuse_below", "shape", "range", "fit")
"""Options of `digits export` that replace an entry of the task card."""

TABLES = {"shape": "input", "range": "input", "fit": "prepare"}
"""Table of an entry in the task card."""

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

PATH = click.Path(path_type=Path)


def _options(*options: Decorator) -> Decorator:
    """Return a decorator that adds these options."""
    return lambda command: functools.reduce(lambda added, option: option(added), options[::-1], command)


target_options = _options(
    click.option(
        "--models",
        default="models",
        envvar="DIGITS_MODELS",
        show_default=True,
        show_envvar=True,
        type=PATH,
        help="Folder of all models.",
    ),
    click.option(
        "--min-accuracy",
        type=click.FloatRange(0, 1),
        help="Lowest accuracy, or mAP of a multi-label task, at which a model is published.  "
        "[default: 0.85 of up to ten labels, 0.28 of 1,000]",
    ),
    click.option(
        "--force",
        is_flag=True,
        help="Publish the model whatever its accuracy.",
    ),
    click.option(
        "--promote",
        is_flag=True,
        help="Serve the published version, as `digits models promote` does.",
    ),
)

feedback_options = _options(
    click.option(
        "--feedback",
        metavar="URL",
        help="A gateway's store, sqlite:///FILE or postgresql://USER@HOST/DATABASE. A fifth of its labelled "
        "pictures only tests the model.",
    ),
    click.option(
        "--without-caller",
        metavar="NAME",
        multiple=True,
        help="Leave out the feedback of this API key; repeatable.",
    ),
    click.option(
        "--min-gain",
        type=click.FloatRange(0, 1),
        help="Least gain in accuracy on the held-out feedback over the stable version.",
    ),
)


def _pop_target(options: dict[str, Any]) -> "Target":
    """Take the options of `target_options` out of a command's options, and `min_gain`."""
    from digit_core.artifact.models_folder import ModelsFolder
    from digit_training.publication import Target
    from digit_training.quality_gate import QualityGate

    gate = QualityGate(*(options.pop(name) for name in ("min_accuracy", "min_gain", "force")))
    return Target(ModelsFolder(options.pop("models")), gate, options.pop("promote"))


def _list_of(kind: Callable[[str], Any]) -> Callable[..., list[Any] | None]:
    """Return the callback of an option whose values are separated by commas."""

    def parse(_context: click.Context, _option: click.Parameter, text: str | None) -> list[Any] | None:
        try:
            return None if text is None else [kind(part.strip()) for part in text.split(",")]
        except ValueError:
            raise click.BadParameter(f"{text!r} is not a list of numbers, separated by commas.") from None

    return parse


def _check_feedback(options: dict[str, Any]) -> None:
    """Raise UsageError if the options of `feedback_options` contradict each other."""
    if options["feedback"] == "":
        raise click.UsageError("--feedback needs the URL of a store; it is empty.")
    if not options["feedback"] and (options["min_gain"] is not None or options["without_caller"]):
        raise click.UsageError("--min-gain and --without-caller need --feedback.")


def _pop_feedback(options: dict[str, Any]) -> "FeedbackSource | None":
    """Take the options of a store out of a command's options; None without a store."""
    from digit_training.pipeline import FeedbackSource

    url, callers, weight = (
        options.pop(name, 1) for name in ("feedback", "without_caller", "feedback_weight")
    )
    return FeedbackSource(url, callers, weight) if url else None


@click.command()
@click.option(
    "--model", default="convnet", show_default=True, type=click.Choice(["convnet", "perceptron", "reader"])
)
@click.option(
    "--recipe",
    default="quick",
    show_default=True,
    type=click.Choice(["quick", "full"]),
    help="Effort for the convnet: 5 epochs, or 24.",
)
@click.option(
    "--data",
    envvar="DIGITS_MNIST",
    show_envvar=True,
    type=PATH,
    help="Keras's mnist.npz, a folder of MNIST's four IDX files, or a folder of pictures with a folder for "
    "each digit.  [default: Keras's cache, or its download]",
)
@feedback_options
@click.option(
    "--feedback-weight",
    default=10,
    show_default=True,
    type=click.IntRange(1),
    help="Training digits for which one of the feedback counts.",
)
@click.option(
    "--from",
    "from_stable",
    type=click.Choice(["stable"]),
    callback=lambda _context, _option, value: value is not None,
    help="Start from the stable version's weights, with two fifths of the epochs.",
)
@click.option("--report", type=PATH, help="Folder for the report.  [default: runs/<time>]")
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0, 2**32 - 1),
    help="Random seed; on one machine, the same seed gives the same model.",
)
@click.option("--epochs", type=click.IntRange(1), help="Passes over the data.  [default: the recipe's]")
@click.option("--batch-size", type=click.IntRange(1), help="Digits per step.  [default: the recipe's]")
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    help="Learning rate at its peak.  [default: the recipe's]",
)
@target_options
@click.option(
    "--if-needed",
    is_flag=True,
    help="Fit nothing: publish the networks that come with this package, if the folder has none.",
)
@click.pass_context
def train(context: click.Context, /, model: str, if_needed: bool, **options: Any) -> None:
    """Fit a model to MNIST, and to feedback, and publish it.

    `--model reader` fits the network that finds digits on a page, for an hour, and publishes it as the next
    version of `reader`. Without it, the reader that comes with this package is published, if there is none.

    The first version is served; a later one after `digits models promote`. The exit status is 4 if the
    quality gate refuses the model or the feedback, or if there is no feedback to learn from, and 1 after an
    error.
    """
    _check_feedback(options)
    target = _pop_target(options)
    if if_needed:
        _publish_shipped(context, target)
        return
    if (data := options["data"]) and not data.exists():
        raise click.ClickException(f"{data} does not exist")
    if model != "convnet" and context.get_parameter_source("recipe") is ParameterSource.COMMANDLINE:
        raise click.UsageError(f"--recipe is for the convnet; --model {model} has one recipe.")
    if model == READER_NAME and options["feedback"]:
        raise click.UsageError("--model reader takes no --feedback.")
    with _training_commands(), _fitting():
        from digit_training import pipeline
        from digit_training.reader import crops
        from digit_training.reader import pipeline as reader_pipeline
        from digit_training.recipes import FitRun

        source = _pop_feedback(options)
        given = {name: options.pop(name) for name in ("epochs", "batch_size", "learning_rate")}
        overrides = {name: value for name, value in given.items() if value is not None}
        if model != "convnet":
            options["recipe"] = model
        run = FitRun(overrides=overrides, **options)
        if model == READER_NAME:
            reader_pipeline.train(target, run)
            return
        pipeline.train(target, run, source, crops)
        pipeline.publish_shipped(target, [READER_NAME])


def _publish_shipped(context: click.Context, target: "Target") -> None:
    """Publish the networks that come with this package. Raise UsageError if an option says how to fit."""
    publishing = {"if_needed", "models", "min_accuracy", "force", "promote"}
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
        and parameter.name not in publishing
    ]
    if given:
        raise click.UsageError(f"--if-needed fits nothing, so it takes no {', '.join(given)}.")
    published = {name: target.models.versions(name) for name in (DIGITS.name, READER_NAME)}
    if all(published.values()):
        click.echo(f"Published already: {next(iter(published[DIGITS.name].values())).path}")
        return
    click.echo("Publishing the networks that come with digits ...")
    with _training_commands():
        from digit_training import pipeline

        pipeline.publish_shipped(target)


def _pop_entries(options: dict[str, Any]) -> dict[str, Any]:
    """Take the entries of the task card out of a command's options."""
    entries: dict[str, Any] = {}
    for name in ENTRIES:
        if (value := options.pop(name)) is not None:
            table = entries.setdefault(TABLES[name], {}) if name in TABLES else entries
            table[name] = value
    return entries


def _check_files(file: Path | None, *others: Path | None) -> None:
    """Raise ClickException for a missing or unsuitable file, before the slow import of TensorFlow."""
    for given in filter(None, (file, *others)):
        if not given.exists():
            raise click.ClickException(f"{given}: the file does not exist")
    if file and file.is_file() and file.suffix not in (".keras", ".h5", ".hdf5"):
        raise click.ClickException(
            f"{file} is not a .keras or .h5 file; docs/how-to/bring-a-model.md says how to export others"
        )


def _import(modules: Sequence[str]) -> None:
    """Import modules from the current folder or the environment, and register what they define with Keras."""
    import keras

    sys.path.insert(0, "")
    for name in modules:
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            raise click.ClickException(f"--import {name}: {error}") from error
        defined = {
            key: value for key, value in vars(module).items() if getattr(value, "__module__", "") == name
        }
        keras.saving.get_custom_objects().update(defined)


@click.command()
@click.argument("file", metavar="[FILE.keras]", type=PATH, required=False)
@click.option(
    "--from-saved-model",
    "saved_model",
    metavar="FOLDER",
    type=PATH,
    help="TensorFlow SavedModel in place of a Keras file.",
)
@click.option(
    "--signature",
    default="serving_default",
    show_default=True,
    help="Signature of the SavedModel.",
)
@click.option(
    "--import",
    "modules",
    metavar="MODULE",
    multiple=True,
    help="Python module with the file's own layers; repeatable.",
)
@click.option(
    "--output",
    type=click.Choice(["probabilities", "logits", "sigmoid", "multi-label"]),
    help="What the model answers; sigmoid is the probability of the second of two labels, multi-label one "
    "for each label.  [default: probabilities]",
)
@click.option("--output-name", metavar="NAME", help="Output of the labels, of a model with several.")
@click.option("--task", "card", metavar="CARD.toml", type=PATH, help="Task card.  [default: the digits']")
@click.option(
    "--labels",
    metavar="A,B,C",
    callback=_list_of(str),
    help="Labels in the order of the output, instead of a task card.",
)
@click.option(
    "--shape",
    metavar="H,W[,C]",
    callback=_list_of(int),
    help="Height, width and channels of the model's input.",
)
@click.option(
    "--range",
    metavar="LOW,HIGH",
    callback=_list_of(float),
    help="Black and white in this input, such as --range=-1,1.",
)
@click.option(
    "--fit",
    type=click.Choice(get_args(Fit)),
    help="Treatment of pictures of another aspect ratio.  [default: stretch]",
)
@click.option(
    "--refuse-below",
    metavar="CONFIDENCE",
    type=click.FloatRange(0, 1),
    help="Confidence below which a picture is refused as unsure.",
)
@click.option(
    "--data",
    envvar="DIGITS_MNIST",
    type=PATH,
    help="Test pictures: a folder with a folder for each label, an .npz file with x_test and y_test or "
    "images and labels, a folder with t10k-images and t10k-labels, or for a multi-label task a CSV file.  "
    "[default for the digits: as in digits train]",
)
@click.option("--rename", "name", metavar="NAME", help="Name of the model.")
@click.option("--report", type=PATH, help="Folder for a report with confusion matrix and worst mistakes.")
@feedback_options
@target_options
@click.pass_context
def export(context: click.Context, /, file: Path | None, modules: tuple[str, ...], **options: Any) -> None:
    """Publish a model that was fitted elsewhere. Options replace entries of its task card.

    Without --task and --labels, the model is one of the digits: it takes pixels 0..1 as [n, 784],
    [n, 28, 28] or [n, 28, 28, 1]. The first version is served; a later one after `digits models promote`.
    The exit status is 4 if the quality gate refuses the model, and 1 after an error.
    """
    _check_feedback(options)
    target = _pop_target(options)
    saved_model, signature, card = (options.pop(name) for name in ("saved_model", "signature", "card"))
    entries = _pop_entries(options)
    path, has_labels = file or saved_model, "labels" in entries
    if path is None or (file and saved_model):
        raise click.UsageError("Give either FILE.keras or --from-saved-model.")
    if card and has_labels:
        raise click.UsageError("Give either --task or --labels.")
    if entries.get("output") == "multi-label" and not card and not has_labels:
        raise click.UsageError("--output multi-label needs --task or --labels.")
    if (card or has_labels) and context.get_parameter_source("data") is ParameterSource.ENVIRONMENT:
        options["data"] = None  # DIGITS_MNIST is not the data of another task.
    _check_files(file, saved_model, card, options["data"])
    with _training_commands():
        _import(modules)
        from digit_training import pipeline

        source = _pop_feedback(options)
        run = pipeline.ExportRun(path, signature if saved_model else None, card, entries, **options)
        pipeline.export(target, run, source)


@contextmanager
def _training_commands() -> Iterator[None]:
    """Silence TensorFlow; print an expected exception as one line on stderr, and exit with its status."""
    # The C++ log prints a page about CUDA at every start. Errors arrive as exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # The Python log warns of retracing after the fifth prediction of several models and sets of pictures.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        yield
    except Interrupted as error:
        click.echo(f"\n{error}", err=True)
        # TensorFlow's prefetching threads may crash in the interpreter's shutdown, which os._exit skips.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED_STATUS)
    except NotPublishedError as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(NOT_PUBLISHED_STATUS) from error
    except (ArtifactError, TrainingError, OSError) as error:
        raise click.ClickException(str(error)) from error


@contextmanager
def _fitting() -> Iterator[None]:
    """Let SIGTERM end a fit with a sentence that says how it goes on."""
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _terminate(*_: object) -> None:
    """Say what a killed process leaves, and end: nothing is cleaned up, as after SIGKILL."""
    sys.stderr.write(
        "\nTerminated; nothing is published. A fit goes on if the same command is repeated with --report "
        "and the folder of its report.\n"
    )
    sys.stderr.flush()
    os._exit(TERMINATED_STATUS)
