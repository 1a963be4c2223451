"""Commands `digits train` and `digits export`.

The imports of Keras and TensorFlow are deferred, so that `--help` and `--if-needed` answer at once.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import click

from digit_training import registry
from digit_training.errors import Interrupted, TrainingError

INTERRUPTED_STATUS = 130
"""Exit status after Ctrl-C, 128 + SIGINT, as in shells."""

PATH = click.Path(path_type=Path)

data_option = click.option(
    "--data",
    envvar="DIGITS_MNIST",
    show_envvar=True,
    type=PATH,
    help="Keras's mnist.npz or a folder of IDX files.  [default: Keras's cache, or its download]",
)
output_option = click.option(
    "--output",
    default=Path("models/digits"),
    show_default=True,
    type=PATH,
    help="Folder of model versions that the model server watches.",
)
min_accuracy_option = click.option(
    "--min-accuracy",
    default=0.85,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Lowest accuracy on the test set at which a model is published.",
)
max_regression_option = click.option(
    "--max-regression",
    default=0.01,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Largest accepted drop in accuracy below the stable version, or below the newest if none is stable.",
)
force_option = click.option("--force", is_flag=True, help="Publish the model whatever its accuracy.")


@click.command()
@click.option("--model", default="convnet", show_default=True, type=click.Choice(["convnet", "perceptron"]))
@click.option(
    "--recipe",
    default="quick",
    show_default=True,
    type=click.Choice(["quick", "full", "best"]),
    help="Effort for the convnet: quick takes two and a half minutes, full ten minutes, "
    "best an hour (an ensemble of five networks).",
)
@data_option
@output_option
@click.option("--report", type=PATH, help="Folder for the report.  [default: runs/<time>]")
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0, 2**32 - 1),
    help="Seed of the random numbers. On one machine, the same seed gives the same model.",
)
@click.option("--epochs", type=click.IntRange(1), help="Passes over the data.  [default: the recipe's]")
@click.option("--batch-size", type=click.IntRange(1), help="Digits per step.  [default: the recipe's]")
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    help="Learning rate of the optimizer, at its peak.  [default: the recipe's]",
)
@min_accuracy_option
@max_regression_option
@force_option
@click.option("--if-needed", is_flag=True, help="Do nothing if a version is already published.")
def train(
    model: str,
    recipe: str,
    data: Path | None,
    output: Path,
    report: Path | None,
    seed: int,
    epochs: int | None,
    batch_size: int | None,
    learning_rate: float | None,
    min_accuracy: float,
    max_regression: float,
    force: bool,
    if_needed: bool,
) -> None:
    """Fit a model to MNIST and publish it as the next version."""
    if if_needed and (version := registry.latest_version(output)):
        click.echo(f"Nothing to train: {version} is already published.")
        return
    _silence_tensorflow()
    with _exit_on_error():
        from digit_training import pipeline
        from digit_training.quality_gate import QualityGate

        pipeline.train(
            recipe=recipe if model == "convnet" else "perceptron",
            data=data,
            output=output,
            report=report,
            seed=seed,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            gate=QualityGate(min_accuracy, max_regression, force),
        )


@click.command()
@click.argument("file", metavar="FILE.keras", type=PATH)
@data_option
@output_option
@min_accuracy_option
@max_regression_option
@force_option
def export(
    file: Path, data: Path | None, output: Path, min_accuracy: float, max_regression: float, force: bool
) -> None:
    """Publish a Keras model that was fitted elsewhere as the next version.

    The model takes pixels 0..1 as [n, 784], [n, 28, 28] or [n, 28, 28, 1] and returns probabilities
    [n, 10].
    """
    _silence_tensorflow()
    with _exit_on_error():
        from digit_training import pipeline
        from digit_training.quality_gate import QualityGate

        gate = QualityGate(min_accuracy, max_regression, force)
        pipeline.export(file=file, data=data, output=output, gate=gate)


def _silence_tensorflow() -> None:
    # The C++ log prints a page about CUDA at every start. Errors arrive as exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # The Python log warns of retracing when the fifth network of an ensemble is fitted.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


@contextmanager
def _exit_on_error() -> Iterator[None]:
    """Print an expected exception of the block as one line on stderr, and exit with a status above 0."""
    try:
        yield
    except Interrupted as error:
        click.echo(f"\n{error}", err=True)
        _hard_exit(INTERRUPTED_STATUS)
    except (TrainingError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _hard_exit(status: int) -> NoReturn:
    # TensorFlow's prefetching threads may crash in the interpreter's shutdown, which os._exit skips.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
