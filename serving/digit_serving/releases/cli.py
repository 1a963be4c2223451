"""`digits models`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from digit_serving.releases.connection import Address, address_options

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
_label_option = click.option("--label", default="stable", show_default=True, help="The label that moves.")
_timeout_option = click.option(
    "--timeout",
    default=60.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds to wait.",
)
_offline_option = click.option(
    "--offline", is_flag=True, help="Change models.config only, for a model server that does not run."
)


@click.group()
def models() -> None:
    """Which versions there are, and which of them is served under which label."""


@models.command()
@_models_option
@address_options
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def ls(models: Path, server: Address, as_json: bool) -> None:
    """List the versions, the newest first."""
    from digit_client import DigitError
    from digit_serving.releases import listing
    from digit_serving.releases.config import ConfigFile
    from digit_serving.releases.readiness import Watch
    from digit_serving.releases.versions import published

    with _plain_errors(), server.connected() as connection:
        file = ConfigFile(models)
        labels = file.read().labels if file.path.exists() else {}
        unreachable = ""
        try:
            states = {number: status.state for number, status in Watch(connection, 0).versions().items()}
        except DigitError as error:
            states, unreachable = {}, error.message
        rows = [listing.row(version, labels, states) for version in published(models).values()]
        if as_json:
            click.echo(listing.document(rows, server.target, not unreachable))
            return
        click.echo(listing.table(rows))
        if unreachable:
            click.echo(f"No states: {unreachable}", err=True)


@models.command()
@_version_argument
@_models_option
def show(version: int, models: Path) -> None:
    """Show the model card of version N."""
    from digit_serving.releases import listing
    from digit_serving.releases.versions import published

    found = published(models).get(version)
    if found is None:
        raise click.ClickException(f"there is no version {version} in {models}")
    card = found.card()
    if not card:
        raise click.ClickException(f"{found.path} has no model card")
    click.echo(listing.card(card))


@models.command()
@_version_argument
@_label_option
@_models_option
@address_options
@_timeout_option
@_offline_option
def promote(version: int, label: str, models: Path, server: Address, timeout: float, offline: bool) -> None:
    """Put a label on version N, once the model server has loaded it.

    From the first time on, only versions with a label are loaded.
    """
    with _plain_errors(), _mover(models, server, timeout, offline) as mover:
        mover.promote(version, label)


@models.command()
@_label_option
@_models_option
@address_options
@_timeout_option
@_offline_option
def rollback(label: str, models: Path, server: Address, timeout: float, offline: bool) -> None:
    """Put a label back on the version that had it before."""
    with _plain_errors(), _mover(models, server, timeout, offline) as mover:
        mover.rollback(label)


@models.command()
@click.option("--keep", required=True, type=click.IntRange(min=1), help="How many of the newest stay.")
@_models_option
@address_options
@_timeout_option
def prune(keep: int, models: Path, server: Address, timeout: float) -> None:
    """Remove old versions.

    What has a label, had it before, is served or is to be served stays, too.
    """
    from digit_serving.releases.versions import prune

    with _plain_errors(), server.connected() as connection:
        prune(models, connection, keep, timeout, click.echo)


@contextmanager
def _mover(models: Path, server: Address, timeout: float, offline: bool) -> Iterator[Any]:
    from digit_serving.releases.promotion import Mover

    with server.connected() as connection:
        yield Mover(models, None if offline else connection, timeout, click.echo)


@contextmanager
def _plain_errors() -> Iterator[None]:
    from digit_client import DigitError
    from digit_serving.releases.config import ReleaseError

    try:
        yield
    except (DigitError, ReleaseError, OSError) as error:
        raise click.ClickException(str(error)) from error
