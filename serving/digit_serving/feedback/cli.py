"""`digits feedback`: list, export and delete records. Commands import their modules lazily."""

import re
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from digit_serving.commands import click_errors, option
from digit_serving.errors import DigitServingError

if typing.TYPE_CHECKING:
    from digit_core.feedback.store import FeedbackStore

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def _parse_time(_ctx: click.Context, _option: click.Parameter, value: str | None) -> datetime | None:
    """Return the time of an age such as 7d, or of a date or time in ISO 8601, local without a time zone."""
    if value is None:
        return None
    try:
        if age := re.fullmatch(r"(\d+)([mhdw])", value):
            return datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: int(age[1])})
        return datetime.fromisoformat(value).astimezone()
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(
            f"{value!r} is neither an age, such as 12h or 7d, nor a date, such as 2026-11-28"
        ) from error


_store_option = option(
    "--store", "url", metavar="URL", required=True, envvar="DIGITS_FEEDBACK", help="The gateway's store."
)
_since_option = click.option(
    "--since", metavar="AGE|DATE", callback=_parse_time, help="Only pictures from this time on, such as 7d."
)
_model_option = click.option("--model", metavar="NAME", help="Only pictures for this model.")


@contextmanager
def _open_store(url: str) -> Iterator["FeedbackStore"]:
    """Yield the store. Expected errors become click's."""
    from digit_core.feedback.store import FeedbackStore
    from digit_core.feedback.table import StoreError

    with click_errors():
        try:
            yield FeedbackStore(url, create=False)
        except StoreError as error:
            raise DigitServingError(str(error)) from error


@click.group()
def feedback() -> None:
    """List, export and delete pictures with labels, and those that wait for one."""


@feedback.command()
@_store_option
@_since_option
@_model_option
@click.option("--unlabelled", is_flag=True, help="Only pictures without a label.")
def ls(url: str, since: datetime | None, model: str | None, unlabelled: bool) -> None:
    """List the pictures, oldest first."""
    from digit_serving.feedback import output

    with _open_store(url) as store:
        labelled = False if unlabelled else None
        click.echo(output.format_records(store.records(since=since, model=model, labelled=labelled)))


@feedback.command("export")
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@_store_option
@_since_option
@_model_option
@click.option(
    "--without-caller",
    "without_callers",
    metavar="NAME",
    multiple=True,
    help="Leave out the feedback of this API key; repeatable.",
)
def export_records(
    target: Path, url: str, since: datetime | None, model: str | None, without_callers: tuple[str, ...]
) -> None:
    """Write the labelled pictures to OUT/train and OUT/held-out, a folder for each label.

    Keras's image_dataset_from_directory and `digits export --data` read these folders; in their names, % and
    two digits stand for a character that no folder can have. A fifth of the pictures is held out, as in
    `digits train --feedback`. OUT/lines has the pictures of whole readings, each beside the number in a
    .gt.txt file. A picture's label is that of at least two thirds of the callers who labelled it, or one by
    hand. Those without such a label, and those of no class, are left out.
    """
    from digit_serving.feedback import output

    with _open_store(url) as store:
        models = sorted({version.model for version in store.stats()})
        if model is None and len(models) > 1:
            raise DigitServingError(
                f"the store has several models; choose one with --model: {', '.join(models)}"
            )
        name = model or next(iter(models), "")
        votes = store.votes(since=since, model=name, without_callers=without_callers)
        if votes.conflicts:
            click.echo(f"Left out: {votes.conflicts:,} (less than two thirds of the callers agree)")
        counts = output.write_folders(store.voted(name, votes), target)
    for part, by_label in counts.items():
        labels = ", ".join(f"{label}: {count:,}" for label, count in sorted(by_label.items()))
        click.echo(f"{target / part}: {by_label.total():,} ({labels or 'none'})")


@feedback.command()
@_store_option
@_since_option
@click.option(
    "--before", metavar="AGE|DATE", callback=_parse_time, help="Only pictures before this time, such as 30d."
)
@_model_option
@click.option("--caller", metavar="NAME", help="Only pictures of this API key.")
@click.option("--label", metavar="LABEL", help="Only pictures with this label.")
@click.option("--request", "request_id", metavar="ID", help="Only pictures of this request.")
@click.option("--yes", is_flag=True, help="Delete without asking.")
def delete(url: str, yes: bool, **given: Any) -> None:
    """Delete the pictures that meet all options, so that no byte of them remains in the store's files.

    Backups are not reached. With PostgreSQL the write-ahead log and its archives keep copies until they are
    recycled.
    """
    if all(value is None for value in given.values()):
        raise click.UsageError("select by --since, --before, --model, --caller, --label or --request")
    with _open_store(url) as store:
        count = store.count(**given)
        if count and not yes:
            click.confirm(f"Delete {_pictures(count)}?", abort=True)
        deleted = store.delete(**given)
    click.echo(f"Deleted {_pictures(deleted)}.")


@feedback.command()
@_store_option
def stats(url: str) -> None:
    """Count pictures, labels, and labels that agree with the answer, by version and caller."""
    from digit_serving.feedback import output

    with _open_store(url) as store:
        click.echo(output.format_stats(store.stats()))


def _pictures(count: int) -> str:
    return f"{count:,} picture{'s' * (count != 1)}"
