"""Parts that all commands share: the option --models, and click's errors for the errors of this package."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

models_option = click.option(
    "--models",
    "root",
    default=Path("models"),
    envvar="DIGITS_MODELS",
    show_default=True,
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="Folder of all models.",
)


@contextmanager
def click_errors() -> Iterator[None]:
    """Turn expected errors into one line on standard error: exit status 2 for SettingError, 1 for others."""
    from digit_client import DigitError
    from digit_client.artifact.versions import ArtifactError
    from digit_serving.errors import DigitServingError, SettingError

    try:
        yield
    except SettingError as error:
        raise click.UsageError(str(error)) from error
    except (ArtifactError, DigitError, DigitServingError, OSError) as error:
        raise click.ClickException(str(error)) from error
