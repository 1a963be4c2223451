"""Parts that commands share: options, click's errors, and text for terminals."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path

import click

option = partial(click.option, show_default=True, show_envvar=True)
PATH = click.Path(path_type=Path)
POSITIVE = click.FloatRange(min=0, min_open=True)

models_option = option(
    "--models",
    "root",
    default=Path("models"),
    envvar="DIGITS_MODELS",
    type=PATH,
    help="Folder of all models.",
)
NONE = "–"
"""Cell without a value."""


@contextmanager
def click_errors() -> Iterator[None]:
    """Turn expected errors into one line on standard error: exit status 2 for SettingError, 1 for others."""
    from digit_core.artifact.versions import ArtifactError
    from digit_core.errors import DigitError
    from digit_serving.errors import DigitServingError, SettingError

    try:
        yield
    except SettingError as error:
        raise click.UsageError(str(error)) from error
    except (ArtifactError, DigitError, DigitServingError, OSError) as error:
        raise click.ClickException(str(error)) from error


def format_table(headings: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[str]) -> str:
    """Return aligned columns; those of `numbers` are right-aligned."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if heading in numbers else cell.ljust(width)
            for heading, cell, width in zip(headings, cells, widths, strict=True)
        ).rstrip()
        for cells in [headings, *rows]
    )


def format_time(time: datetime) -> str:
    """Return a time in this machine's time zone, to the minute."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M")


def format_size(size: int) -> str:
    """Return a number of bytes in kB or MB."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
