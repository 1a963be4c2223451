"""`digits models`: list, promote, prune, copy and verify versions. Commands import their modules lazily."""

import functools
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from digit_serving.releases.connection import Endpoint, endpoint_options

if typing.TYPE_CHECKING:
    from digit_serving.releases.versions import PublishedModel

_version_argument = click.argument("version", metavar="N", type=click.IntRange(min=0))
_models_option = click.option(
    "--models",
    default=Path("models/digits"),
    envvar="DIGITS_MODELS",
    show_default=True,
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="Folder of a model's versions, or of several models' folders.",
)
_name_option = click.option(
    "--model", "name", metavar="NAME", help="Name of the model; needed if there are several."
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


def _public_key_option(required: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(
        "--public-key",
        envvar="DIGITS_MODEL_PUBLIC_KEY",
        required=required,
        show_envvar=True,
        type=click.Path(path_type=Path),
        help="PEM file; a version must be signed by this key's owner. The drop-in reads the variable, too.",
    )


@contextmanager
def _click_errors() -> Iterator[None]:
    """Turn expected errors into one line on standard error and exit status 1."""
    from digit_client import DigitError
    from digit_serving.releases.config import ReleaseError

    try:
        yield
    except (DigitError, ReleaseError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _model_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add --models and --model to the command, and pass the model that they name to its parameter `model`."""

    @functools.wraps(command)
    def with_model(models: Path, name: str | None, **others: Any) -> None:
        from digit_serving.releases.versions import find_model

        with _click_errors():
            model = find_model(models, name)
        command(model=model, **others)

    return _models_option(_name_option(with_model))


@click.group()
def models() -> None:
    """List, promote, roll back, prune, copy and verify published versions."""


@models.command()
@_model_options
@endpoint_options
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def ls(model: "PublishedModel", endpoint: Endpoint, as_json: bool) -> None:
    """List the versions, newest first."""
    from digit_client import DigitError
    from digit_serving.releases import listing
    from digit_serving.releases.config import ConfigFile
    from digit_serving.releases.readiness import ReadinessWaiter
    from digit_serving.releases.versions import list_versions

    with _click_errors(), endpoint.connect() as server:
        file = ConfigFile(model.root)
        labels = file.read().labels(model.name) if file.path.exists() else {}
        unreachable = ""
        try:
            statuses = ReadinessWaiter(server, model.name, timeout=0).statuses()
        except DigitError as error:
            statuses, unreachable = {}, error.message
        states = {number: status.state for number, status in statuses.items()}
        versions = list_versions(model.path).values()
        rows = [listing.make_row(version, labels, states) for version in versions]
        if as_json:
            click.echo(listing.format_json(model.name, rows, endpoint.target, not unreachable))
            return
        click.echo(listing.format_table(rows))
        if unreachable:
            click.echo(f"States are unknown: {unreachable}", err=True)


@models.command()
@_version_argument
@_model_options
def show(version: int, model: "PublishedModel") -> None:
    """Show the model card of version N."""
    from digit_serving.releases import listing
    from digit_serving.releases.versions import list_versions

    found = list_versions(model.path).get(version)
    if found is None:
        raise click.ClickException(f"version {version} does not exist in {model.path}")
    card = found.card()
    if not card:
        raise click.ClickException(f"{found.path} has no model card")
    click.echo(listing.format_card(card))


@models.command()
@_version_argument
@_label_option
@_models_option
@_name_option
@endpoint_options
@_timeout_option
@_offline_option
@click.option(
    "--file",
    metavar="PATH",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Change only the numbers in this models.config, such as Kubernetes'; needs no models or server.",
)
def promote(
    version: int,
    label: str,
    models: Path,
    name: str | None,
    endpoint: Endpoint,
    timeout: float,
    offline: bool,
    file: Path | None,
) -> None:
    """Move a label to version N once it is loaded.

    The model server loads the version first. After the first promotion it loads only versions with a label.
    """
    if file:
        from digit_serving.releases.config_edit import promote_in_file

        with _click_errors():
            is_changed = promote_in_file(file, name, version, label)
        click.echo(f"Version {version} is {label} in {file}." if is_changed else f"{file} needs no change.")
        return
    from digit_serving.releases.versions import find_model

    with _click_errors():
        model = find_model(models, name)
        with _promoter(model, endpoint, timeout, offline) as promoter:
            promoter.promote(version, label)


@models.command()
@_label_option
@_model_options
@endpoint_options
@_timeout_option
@_offline_option
def rollback(label: str, model: "PublishedModel", endpoint: Endpoint, timeout: float, offline: bool) -> None:
    """Move a label back to its previous version."""
    with _click_errors(), _promoter(model, endpoint, timeout, offline) as promoter:
        promoter.roll_back(label)


@models.command()
@click.option("--keep", required=True, type=click.IntRange(min=1), help="Number of newest versions to keep.")
@_model_options
@endpoint_options
@_timeout_option
def prune(keep: int, model: "PublishedModel", endpoint: Endpoint, timeout: float) -> None:
    """Remove old versions.

    A version stays if it has a label, is loaded or to be loaded, or is a label's previous version.
    """
    from digit_serving.releases.pruning import prune

    with _click_errors(), endpoint.connect() as server:
        prune(model, server, keep, timeout, click.echo)


@models.command()
@click.argument("url")
@click.option("--version", metavar="N", type=click.IntRange(min=0), help="Version; by default the newest.")
@_model_options
def push(url: str, version: int | None, model: "PublishedModel") -> None:
    """Copy a version into object storage, such as s3://bucket/digits.

    It can be pulled when it is complete. An interrupted push goes on where it stopped. A version that is
    there never changes.
    """
    from digit_serving.releases.versions import list_versions

    with _click_errors(), _needs("s3"):
        from digit_serving.releases.bucket import Bucket

        published = list_versions(model.path)
        number = max(published) if version is None else version
        if number not in published:
            raise click.ClickException(f"version {number} does not exist in {model.path}")
        Bucket(url).push(published[number], click.echo)


@models.command()
@click.argument("url")
@click.option(
    "--to",
    "folder",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the model's versions; created if it is missing.",
)
@click.option(
    "--version",
    "numbers",
    metavar="N",
    multiple=True,
    type=click.IntRange(min=0),
    help="Version; repeatable.",
)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="models.config: pull the versions that it loads.",
)
@_name_option
@click.option(
    "--timeout",
    default=600.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds to wait for another pull into the folder.",
)
@_public_key_option(required=False)
def pull(
    url: str,
    folder: Path,
    numbers: tuple[int, ...],
    config: Path | None,
    name: str | None,
    timeout: float,
    public_key: Path | None,
) -> None:
    """Copy versions from object storage into a folder; by default the newest.

    A version appears in the folder when it is complete and its checksums are right. An interrupted pull goes
    on where it stopped. A version that is there never changes.
    """
    if numbers and config:
        raise click.UsageError("--version and --config exclude each other")
    with _click_errors(), _needs("s3"):
        from digit_serving.releases.bucket import Bucket, versions_to_pull

        bucket = Bucket(url)
        check = _signature_check(public_key) if public_key else lambda _: None
        for number in numbers or versions_to_pull(bucket, config, name):
            bucket.pull(number, folder, check, timeout, click.echo)


@models.command()
@_version_argument
@_model_options
@_public_key_option(required=True)
def verify(version: int, model: "PublishedModel", public_key: Path) -> None:
    """Check that version N has the files that the owner of a key signed, and no others."""
    from digit_serving.releases.versions import list_versions

    found = list_versions(model.path).get(version)
    if found is None:
        raise click.ClickException(f"version {version} does not exist in {model.path}")
    with _click_errors():
        _signature_check(public_key)(found.path)
    click.echo(f"{found.path} is signed by the owner of {public_key}.")


def _signature_check(public_key: Path) -> Callable[[Path], None]:
    with _needs("signing"):
        from digit_serving.releases import signatures

    return lambda version: signatures.verify(version, public_key)


@contextmanager
def _needs(extra: str) -> Iterator[None]:
    """Turn the error of a missing module into one line that says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"this command needs the module {error.name}; "
            f"install it in a clone of digit-serving: pip install '.[{extra}]'"
        ) from error


@contextmanager
def _promoter(model: "PublishedModel", endpoint: Endpoint, timeout: float, offline: bool) -> Iterator[Any]:
    from digit_serving.releases.promotion import Promoter

    with endpoint.connect() as server:
        yield Promoter(model, None if offline else server, timeout, click.echo)
