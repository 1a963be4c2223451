"""`digits models`: list, promote, prune, copy and verify versions. Commands import their modules lazily."""

import functools
import typing
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from digit_serving.releases.connection import Endpoint, endpoint_options

if typing.TYPE_CHECKING:
    from digit_client.artifact.models_folder import ModelsFolder
    from digit_serving.releases.promotion import Releases

_version_argument = click.argument("number", metavar="N", type=click.IntRange(min=0))
_models_option = click.option(
    "--models",
    "root",
    default=Path("models"),
    envvar="DIGITS_MODELS",
    show_default=True,
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="Folder of all models.",
)
_name_option = click.option(
    "--model", "name", metavar="NAME", help="Name of the model; needed if there are several."
)
_label_option = click.option(
    "--version-label", "label", default="stable", show_default=True, help="Label to move."
)
_public_key_option = click.option(
    "--public-key",
    envvar="DIGITS_MODEL_PUBLIC_KEY",
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="PEM file; a version must be signed by this key's owner. The drop-in reads the variable, too.",
)
_CHANGE_OPTIONS = (
    click.option(
        "--gateway",
        metavar="URL",
        envvar="DIGITS_URL",
        show_envvar=True,
        help="Gateway that has to answer as well; $DIGITS_API_KEY is its key.",
    ),
    click.option(
        "--timeout",
        default=60.0,
        show_default=True,
        type=click.FloatRange(min=0, min_open=True),
        help="Seconds to wait for each step of the service.",
    ),
    click.option("--offline", is_flag=True, help="Wait for no service: the model server is not running."),
    click.option("--force", is_flag=True, help="Rewrite a models.config that Digits did not write."),
)
_JOB_OPTIONS = (
    click.option(
        "--job",
        is_flag=True,
        help="Print a Kubernetes Job that does this in the cluster: | kubectl --namespace digits apply -f -",
    ),
    click.option("--image", help="Image of the Job.  [default: digits-gateway of this release]"),
)


@contextmanager
def _click_errors() -> Iterator[None]:
    """Turn expected errors into one line on standard error and exit status 1."""
    from digit_client import DigitError
    from digit_client.artifact.versions import ArtifactError

    try:
        yield
    except (DigitError, ArtifactError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _model_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add --models and --model to the command; pass the folder and the model's name that they stand for."""

    @functools.wraps(command)
    def with_model(root: Path, name: str | None, **others: Any) -> None:
        from digit_client.artifact.models_folder import ModelsFolder

        with _click_errors():
            folder = ModelsFolder(root)
            command(folder=folder, name=folder.choose(name), **others)

    return _models_option(_name_option(with_model))


@dataclass(frozen=True)
class _Change:
    """Options of a command that changes what is served."""

    root: Path
    name: str | None
    endpoint: Endpoint
    gateway: str | None
    timeout: float
    offline: bool
    force: bool

    @contextmanager
    def releases(self) -> Iterator["Releases"]:
        """Connect to the services for the block."""
        from digit_client import Client
        from digit_client.artifact.models_folder import ModelsFolder
        from digit_serving.releases.promotion import Releases
        from digit_serving.releases.service import Service

        with _click_errors(), ExitStack() as stack:
            folder = ModelsFolder(self.root)
            name, service = folder.choose(self.name), None
            if not self.offline:
                server, gateway = stack.enter_context(self.endpoint.connect()), None
                try:
                    if self.gateway:
                        gateway = stack.enter_context(Client(self.gateway, model=name))
                except ValueError as error:
                    raise click.UsageError(str(error)) from error
                service = Service(name, server, gateway, self.timeout)
            yield Releases(folder, name, service, click.echo, self.force)


def _change_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a change to the command, and pass their values to its parameter `change`."""

    @functools.wraps(command)
    def with_change(**options: Any) -> None:
        change = _Change(*(options.pop(field.name) for field in fields(_Change)))
        command(change=change, **options)

    with_options = endpoint_options(with_change)
    for option in reversed((_models_option, _name_option, *_CHANGE_OPTIONS)):
        with_options = option(with_options)
    return with_options


def _job_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add --job and --image to a command that changes a label; with --job, print the Job in its place."""

    @functools.wraps(command)
    def with_job(job: bool, image: str | None, change: _Change, **others: Any) -> None:
        if not job:
            command(change=change, **others)
            return
        from digit_serving.releases.job import format_job

        arguments = [str(others["number"])] if "number" in others else []
        arguments += ["--version-label", others["label"]]
        arguments += ["--model", change.name] if change.name else []
        arguments += ["--force"] if change.force else []
        click.echo(format_job(command.__name__, arguments, image), nl=False)

    for option in reversed(_JOB_OPTIONS):
        with_job = option(with_job)
    return with_job


@click.group()
def models() -> None:
    """List, promote, roll back, prune, copy and verify published versions."""


@models.command()
@_model_options
@endpoint_options
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def ls(folder: "ModelsFolder", name: str, endpoint: Endpoint, as_json: bool) -> None:
    """List the versions, newest first."""
    from digit_client import DigitError
    from digit_serving.releases import listing
    from digit_serving.releases.service import Service

    states, unreachable = {}, ""
    with endpoint.connect() as server:
        try:
            statuses = Service(name, server, None, timeout=0).statuses()
            states = {number: status.state for number, status in statuses.items()}
        except DigitError as error:
            unreachable = error.message
    rows = listing.make_rows(folder, name, states)
    if as_json:
        click.echo(listing.format_json(name, rows, endpoint.target, not unreachable))
        return
    click.echo(listing.format_table(rows))
    if unreachable:
        click.echo(f"States are unknown: {unreachable}", err=True)


@models.command()
@_version_argument
@_model_options
def show(number: int, folder: "ModelsFolder", name: str) -> None:
    """Show the model card of version N."""
    from digit_serving.releases import listing

    version = folder.version(name, number)
    card = version.card()
    if not card:
        raise click.ClickException(f"{version.path} has no model card")
    click.echo(listing.format_card(card))


@models.command()
@_version_argument
@_label_option
@_change_options
@_job_options
def promote(number: int, label: str, change: _Change) -> None:
    """Serve version N: move a label to it once it is loaded.

    The command succeeds when the model server, and the gateway if one is named, answer the label with version
    N. Otherwise everything stays as it was. No version is unloaded.
    """
    with change.releases() as releases:
        releases.promote(number, label)


@models.command()
@_label_option
@_change_options
@_job_options
def rollback(label: str, change: _Change) -> None:
    """Move a label back to the version that had it before."""
    with change.releases() as releases:
        releases.roll_back(label)


@models.command()
@click.option(
    "--keep",
    default=10,
    show_default=True,
    type=click.IntRange(min=1),
    help="Number of newest versions to keep.",
)
@_change_options
def prune(keep: int, change: _Change) -> None:
    """Unload and remove old versions.

    A version stays if it has a label, or had one before the version that has it.
    """
    with change.releases() as releases:
        releases.prune(keep)


@models.command()
@click.argument("url")
@click.option(
    "--version", "number", metavar="N", type=click.IntRange(min=0), help="Version.  [default: the newest]"
)
@click.option(
    "--promote", is_flag=True, help="Push the labelled versions, and move the bucket's labels to them."
)
@_model_options
def push(url: str, number: int | None, promote: bool, folder: "ModelsFolder", name: str) -> None:
    """Copy a version into a bucket, such as s3://bucket/models, and enter it in the models.config there.

    An interrupted push goes on where it stopped. A version that is there never changes. A label moves with
    --promote only.
    """
    with _needs("s3"):
        from digit_serving.releases.bucket import Bucket

        labels = folder.read_config().labels(name) if promote else {}
        if number is None and not labels:
            number = max(folder.versions(name))
        numbers = {*labels.values()} if number is None else {number, *labels.values()}
        Bucket(url).publish(
            folder, [folder.version(name, each) for each in sorted(numbers)], labels, click.echo
        )


@models.command()
@click.argument("url")
@click.option(
    "--version",
    "numbers",
    metavar="N",
    multiple=True,
    type=click.IntRange(min=0),
    help="Version, which is copied and not entered in models.config; repeatable.",
)
@_models_option
@_name_option
@click.option(
    "--timeout",
    default=600.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds to wait for another change of the folder.",
)
@_public_key_option
def pull(
    url: str,
    numbers: tuple[int, ...],
    root: Path,
    name: str | None,
    timeout: float,
    public_key: Path | None,
) -> None:
    """Copy from a bucket what the models.config there names: versions, then labels.

    A version appears in the folder when it is complete and its checksums are right. An interrupted pull goes
    on where it stopped. A version that is there never changes.
    """
    with _click_errors(), _needs("s3"):
        from digit_client.artifact.models_folder import ModelsFolder
        from digit_serving.releases.bucket import Bucket, Pull

        check = _signature_check(public_key) if public_key else lambda _: None
        root.mkdir(parents=True, exist_ok=True)
        folder = ModelsFolder(root)
        with folder.lock(timeout):
            Pull(Bucket(url), folder, check, click.echo).run(name, numbers)


@models.command()
@_version_argument
@_model_options
@_public_key_option
def verify(number: int, folder: "ModelsFolder", name: str, public_key: Path | None) -> None:
    """Load version N in a process of its own, and enter it in models.config: it can be asked by number.

    With a key, its files must be those that the key's owner signed.
    """
    version = folder.version(name, number)
    if public_key:
        _signature_check(public_key)(version.path)
        click.echo(f"{version.path} is signed by the owner of {public_key}.")
    with folder.lock():
        if number in folder.read_config().listed(name):
            folder.verify(version.path)
        else:
            folder.enter(version)
        is_entered = number in folder.read_config().listed(name)
    kept = "" if is_entered else f"; Digits did not write {folder.config_path}: name it there yourself"
    click.echo(f"{version.path} can be served{kept}.")


@models.command()
@_models_option
@click.option("--model", "name", metavar="NAME", help="Fail if models.config does not name this model.")
def check(root: Path, name: str | None) -> None:
    """Correct models.config before a model server starts.

    Enter models that have no entry, and take out versions whose files are missing.
    """
    from digit_client.artifact.models_folder import ModelsFolder

    with _click_errors():
        folder = ModelsFolder(root)
        folder.prepare(click.echo)
        if name and name not in folder.read_config().base_paths:
            raise click.ClickException(
                f"{folder.config_path} has no model named {name}; "
                "publish one with `digits train` or `digits export`"
            )


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
