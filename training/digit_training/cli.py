"""The commands `digits train` and `digits export`."""

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
from digit_training.quality_gate import Bar

INTERRUPTED = 130
"""The exit status of a command that Ctrl-C ended, as shells count it: 128 and the number of SIGINT."""

_path = click.Path(path_type=Path)

data_option = click.option(
    "--data",
    envvar="DIGITS_MNIST",
    show_envvar=True,
    type=_path,
    help="Keras's mnist.npz or a folder of IDX files.  [default: Keras's cache, or its download]",
)
output_option = click.option(
    "--output",
    default=Path("models/digits"),
    show_default=True,
    type=_path,
    help="The directory of versions that the model server watches.",
)
min_accuracy_option = click.option(
    "--min-accuracy",
    default=0.85,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Publish no model whose accuracy on the test set is lower.",
)
max_regression_option = click.option(
    "--max-regression",
    default=0.01,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Publish no model whose accuracy is lower by more than this than that of the stable version, "
    "or where none is stable of the newest.",
)
force_option = click.option("--force", is_flag=True, help="Publish it however right it is.")


@click.command()
@click.option("--model", default="convnet", show_default=True, type=click.Choice(["convnet", "perceptron"]))
@click.option(
    "--recipe",
    default="quick",
    show_default=True,
    type=click.Choice(["quick", "full", "best"]),
    help="How well the convnet is fitted: quick in a minute and a half, full in five to eight, "
    "best as five networks that answer together in half an hour.",
)
@data_option
@output_option
@click.option("--report", type=_path, help="Where the report goes.  [default: runs/<time>]")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**32 - 1))
@click.option("--epochs", type=click.IntRange(1), help="By default what suits the model.")
@click.option("--batch-size", type=click.IntRange(1), help="By default what suits the model.")
@click.option(
    "--learning-rate", type=click.FloatRange(0, min_open=True), help="By default what suits the model."
)
@min_accuracy_option
@max_regression_option
@force_option
@click.option("--if-needed", is_flag=True, help="Do nothing where a version is published already.")
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
    if if_needed and (version := registry.latest(output)):
        click.echo(f"Nothing to train: {version} is there.")
        return
    with _plain_errors():
        from digit_training import pipeline

        pipeline.train(
            recipe=recipe if model == "convnet" else model,
            data=data,
            output=output,
            report=report,
            seed=seed,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            bar=Bar(min_accuracy, max_regression, force),
        )


@click.command()
@click.argument("file", metavar="FILE.keras", type=_path)
@data_option
@output_option
@min_accuracy_option
@max_regression_option
@force_option
def export(
    file: Path, data: Path | None, output: Path, min_accuracy: float, max_regression: float, force: bool
) -> None:
    """Publish a Keras model fitted elsewhere as the next version.

    It takes pixels 0..1 as [n, 784], [n, 28, 28] or [n, 28, 28, 1] and answers probabilities [n, 10].
    """
    with _plain_errors():
        from digit_training import pipeline

        pipeline.export(file=file, data=data, output=output, bar=Bar(min_accuracy, max_regression, force))


@contextmanager
def _plain_errors() -> Iterator[None]:
    # TensorFlow's C++ side greets every start with a page about CUDA; its errors arrive as exceptions anyway.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Its Python side warns of the fifth network that it is another one than those before.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        yield
    except Interrupted as error:
        click.echo(f"\n{error}", err=True)
        _leave(INTERRUPTED)
    except (TrainingError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _leave(status: int) -> NoReturn:
    # TensorFlow's threads may still read ahead through Python, which has crashed where Python was ending.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
