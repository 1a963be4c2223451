"""`digits models`: list, promote, roll back and prune versions. Commands import their modules lazily."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from digit_serving.releases.connection import Endpoint, endpoint_options

_version_argument = click.argument("version", metavar="N", type=click.IntRange(min=0))
_models_option = click.option(
    "--models",
    default=Path("models/digits"),
    envvar="DIGITS_MODELS",
    show_default=True,
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="Folder of the model's versions.",
)
_label_option = click.option("--label", default="stable", show_default=True, help="Label to move.")
_timeout_option = click.option(
    "--timeout",
    default=60.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds to wait.",
)
_offline_option = click.option(
    "--offline", is_flag=True, help="Change models.config only, while the model server is not running."
)


@click.group()
def models() -> None:
    """List, promote, roll back and prune published versions."""


@models.command()
@_models_option
@endpoint_options
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def ls(models: Path, endpoint: Endpoint, as_json: bool) -> None:
    """List the versions, newest first."""
    from digit_client import DigitError
    from digit_serving.releases import listing
    from digit_serving.releases.config import ConfigFile
    from digit_serving.releases.readiness import ReadinessWaiter
    from digit_serving.releases.versions import list_versions

    with _click_errors(), endpoint.connect() as server:
        file = ConfigFile(models)
        labels = file.read().labels if file.path.exists() else {}
        unreachable = ""
        try:
            statuses = ReadinessWaiter(server, timeout=0).statuses()
        except DigitError as error:
            statuses, unreachable = {}, error.message
        states = {number: status.state for number, status in statuses.items()}
        rows = [listing.make_row(version, labels, states) for version in list_versions(models).values()]
        if as_json:
            click.echo(listing.format_json(rows, endpoint.target, not unreachable))
            return
        click.echo(listing.format_table(rows))
        if unreachable:
            click.echo(f"States are unknown: {unreachable}", err=True)


@models.command()
@_version_argument
@_models_option
def show(version: int, models: Path) -> None:
    """Show the model card of version N."""
    from digit_serving.releases import listing
    from digit_serving.releases.versions import list_versions

    found = list_versions(models).get(version)
    if found is None:
        raise click.ClickException(f"version {version} does not exist in {models}")
    card = found.card()
    if not card:
        raise click.ClickException(f"{found.path} has no model card")
    click.echo(listing.format_card(card))


@models.command()
@_version_argument
@_label_option
@_models_option
@endpoint_options
@_timeout_option
@_offline_option
def promote(
    version: int, label: str, models: Path, endpoint: Endpoint, timeout: float, offline: bool
) -> None:
    """Move a label to version N once it is loaded.

    The model server loads the version first. After the first promotion it loads only versions with a label.
    """
    with _click_errors(), _promoter(models, endpoint, timeout, offline) as promoter:
        promoter.promote(version, label)


@models.command()
@_label_option
@_models_option
@endpoint_options
@_timeout_option
@_offline_option
def rollback(label: str, models: Path, endpoint: Endpoint, timeout: float, offline: bool) -> None:
    """Move a label back to its previous version."""
    with _click_errors(), _promoter(models, endpoint, timeout, offline) as promoter:
        promoter.roll_back(label)


@models.command()
@click.option("--keep", required=True, type=click.IntRange(min=1), help="Number of newest versions to keep.")
@_models_option
@endpoint_options
@_timeout_option
def prune(keep: int, models: Path, endpoint: Endpoint, timeout: float) -> None:
    """Remove old versions.

    A version stays if it has a label, is loaded or to be loaded, or is a label's previous version.
    """
    from digit_serving.releases.pruning import prune

    with _click_errors(), endpoint.connect() as server:
        prune(models, server, keep, timeout, click.echo)


@contextmanager
def _promoter(models: Path, endpoint: Endpoint, timeout: float, offline: bool) -> Iterator[Any]:
    from digit_serving.releases.promotion import Promoter

    with endpoint.connect() as server:
        yield Promoter(models, None if offline else server, timeout, click.echo)


@contextmanager
def _click_errors() -> Iterator[None]:
    """Turn expected errors into one line on standard error and exit status 1."""
    from digit_client import DigitError
    from digit_serving.releases.config import ReleaseError

    try:
        yield
    except (DigitError, ReleaseError, OSError) as error:
        raise click.ClickException(str(error)) from error
