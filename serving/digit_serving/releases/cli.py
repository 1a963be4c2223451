"""`digits models`: list, promote, remove, copy and verify versions. Commands import their modules lazily."""

import functools
import json
import signal
import sys
import time
import typing
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from digit_client.command_options import Command
from digit_core.artifact.task_card import READER_NAME
from digit_serving.commands import PATH, POSITIVE, click_errors, option
from digit_serving.errors import DigitServingError, NoServiceError, needs_extra
from digit_serving.releases.options import (
    ChangeOptions,
    Endpoint,
    change_options,
    endpoint_options,
    folder_option,
    model_options,
    name_option,
    removal_options,
)

if typing.TYPE_CHECKING:
    from digit_core.artifact.models_folder import ModelsFolder

_version_argument = click.argument("number", metavar="N", type=click.IntRange(min=0))
_label_option = option("--version-label", "label", default="stable", help="Label to move.")
_public_key_option = option(
    "--public-key",
    envvar="DIGITS_MODEL_PUBLIC_KEY",
    type=PATH,
    help="PEM file; a version must be signed by this key's owner.",
)


def _repeatable(pull: Command) -> Command:
    """Add --every and --metrics-port to a command, which repeat it until SIGTERM, even after failures."""

    @click.option(
        "--every",
        metavar="SECONDS",
        type=POSITIVE,
        help="Pull again and again with this pause, even after failures.",
    )
    @click.option(
        "--metrics-port",
        metavar="PORT",
        type=click.IntRange(1, 65535),
        help="Port of /metrics, which has the time of the latest success; for --every.",
    )
    @functools.wraps(pull)
    def repeatable(every: float | None, metrics_port: int | None, **options: Any) -> None:
        if not every:
            pull(**options)
            return
        with needs_extra("s3"):
            from prometheus_client import CollectorRegistry, Gauge, start_http_server

            registry = CollectorRegistry()
            text = "Unix time of the latest pull without an error, 0 before the first."
            pulled = Gauge("digits_models_pulled_timestamp_seconds", text, registry=registry)
            if metrics_port:
                start_http_server(metrics_port, registry=registry)
        # The first process of a container ignores signals that it does not handle.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        while True:
            try:
                with click_errors():
                    pull(**options)
                pulled.set_to_current_time()
            except click.ClickException as error:
                error.show()
            time.sleep(every)

    return repeatable


@click.group()
def models() -> None:
    """List, promote, roll back, remove, copy and verify published versions."""


@models.command()
@model_options
@endpoint_options
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def ls(folder: "ModelsFolder", name: str, as_json: bool, **endpoint: Any) -> None:
    """List the versions, newest first; say why a version or model is not served."""
    from digit_core.errors import DigitError
    from digit_serving.releases import listing
    from digit_serving.releases.promotion import statuses

    found, unknown, asked, is_reachable = {}, "", None, False
    try:
        with Endpoint(**endpoint).connected(folder.root) as (server, address):
            asked, unknown = address.value, address.explain(f"the model server does not serve {name}")
            try:
                found, is_reachable = statuses(server, name), True
            except DigitError as error:
                unknown = address.explain(error.message)
    except NoServiceError as error:
        unknown = str(error)
    rows, left_out = listing.make_rows(folder, name, found), folder.left_out()
    shares = folder.read_traffic().get(name, {})
    if as_json:
        document: dict[str, Any] = {"model": name, "server": asked, "reachable": is_reachable}
        document |= {"left_out": left_out, "traffic": shares, "versions": [*map(asdict, rows)]}
        click.echo(json.dumps(document, indent=2))
        return
    click.echo(listing.format_table(rows, shares))
    for row in rows:
        if row.reason:
            click.echo(f"Version {row.version} is not served: {row.reason}", err=True)
    for other, reason in left_out.items():
        click.echo(f"The model {other} is not served: {reason}", err=True)
    if not found:
        click.echo(f"States are unknown: {unknown}", err=True)


@models.command()
@_version_argument
@model_options
def show(number: int, folder: "ModelsFolder", name: str) -> None:
    """Show the model card of version N."""
    from digit_serving.releases import listing

    version = folder.version(name, number)
    card = version.card()
    if not card:
        raise DigitServingError(f"{version.path} has no model card")
    click.echo(listing.format_card(card))


@models.command()
@_version_argument
@_label_option
@click.option(
    "--share",
    type=click.FloatRange(0, 1),
    help="Share of the requests without version and label that the label answers, such as 0.1; 0 ends that.",
)
@change_options
def promote(number: int, label: str, share: float | None, **change: Any) -> None:
    """Serve version N: move a label to it once it is loaded.

    The command succeeds when the model server, and the gateway if one is named, answer the label with version
    N. Otherwise everything stays as it was. No version is unloaded.
    """
    with ChangeOptions(**change).releases() as releases:
        releases.promote(number, label, share)


@models.command()
@_label_option
@change_options
def rollback(label: str, **change: Any) -> None:
    """Move a label back to the version that had it before."""
    with ChangeOptions(**change).releases() as releases:
        releases.roll_back(label)


@models.command()
@folder_option
@click.option("--model", "name", metavar="NAME", help="Show only changes of this model.")
def history(folder: "ModelsFolder", name: str | None) -> None:
    """List who moved which label, newest first."""
    from digit_serving.releases import listing

    changes = [each for each in reversed(folder.changes()) if name in (None, each.model)]
    click.echo(listing.format_history(changes))


@models.command()
@option("--keep", default=10, type=click.IntRange(min=1), help="Number of newest versions to keep.")
@change_options
def prune(keep: int, **change: Any) -> None:
    """Unload and remove old versions.

    A version stays if it has a label, or if a rollback would give it one.
    """
    with ChangeOptions(**change).releases() as releases:
        releases.prune(keep)


@models.command()
@click.argument("name")
@removal_options
@click.confirmation_option(prompt="Remove all versions of the model?")
def remove(**change: Any) -> None:
    """Unload model NAME and remove all its versions.

    The model that answers callers who name none can't be removed.
    """
    with ChangeOptions(**change).releases() as releases:
        releases.remove()


@models.command()
@click.argument("url")
@click.option(
    "--version", "number", metavar="N", type=click.IntRange(min=0), help="Version.  [default: the newest]"
)
@click.option(
    "--promote", is_flag=True, help="Push the labelled versions, and move the bucket's labels to them."
)
@model_options
def push(url: str, number: int | None, promote: bool, folder: "ModelsFolder", name: str) -> None:
    """Copy a version into a bucket, such as s3://bucket/models, and add it to the models.config there.

    An interrupted push resumes where it stopped. A version in the bucket never changes. Labels move only with
    --promote.
    """
    with needs_extra("s3"):
        from digit_serving.releases.bucket import Bucket, push_versions

        labels = folder.read_config().labels(name) if promote else {}
        if number is None and not labels:
            number = max(folder.versions(name))
        numbers = {*labels.values()} if number is None else {number, *labels.values()}
        versions = [folder.version(name, each) for each in sorted(numbers)]
        push_versions(Bucket(url, click.echo), folder, versions, labels)


@models.command()
@click.argument("url")
@click.option(
    "--version",
    "numbers",
    metavar="N",
    multiple=True,
    type=click.IntRange(min=0),
    help="Version to copy without adding it to models.config; repeatable.",
)
@folder_option
@name_option
@option("--timeout", default=600.0, type=POSITIVE, help="Seconds to wait for another change of the folder.")
@_repeatable
@_public_key_option
def pull(
    url: str,
    numbers: tuple[int, ...],
    folder: "ModelsFolder",
    name: str | None,
    timeout: float,
    public_key: Path | None,
) -> None:
    """Copy the versions, then the labels, that a bucket's models.config names.

    A version appears in the folder when it is complete and its checksums are right. An interrupted pull
    resumes where it stopped. A version never changes; one that the models.config no longer names is removed
    here if the bucket keeps it, unless a rollback needs it. With a key, a version without its owner's
    signature is left out.
    """
    with needs_extra("s3"):
        from digit_serving.releases.bucket import Bucket, Pull

        check = _signature_check(public_key) if public_key else lambda _: None
        folder.root.mkdir(parents=True, exist_ok=True)
        with folder.lock(timeout):
            Pull(Bucket(url, click.echo), folder, check).run(name, numbers)


@models.command()
@_version_argument
@model_options
@_public_key_option
def verify(number: int, folder: "ModelsFolder", name: str, public_key: Path | None) -> None:
    """Load version N in a process of its own, and add it to models.config.

    With a key, the files must be those that the key's owner signed.
    """
    version = folder.version(name, number)
    if public_key:
        _signature_check(public_key)(version.path)
        click.echo(f"{version.path} is signed by the owner of {public_key}.")
    with folder.lock():
        config = folder.read_config()
        if number in config.listed(name):
            folder.verify(version.path)
        else:
            config = folder.enter(config, version)
    is_entered = number in config.listed(name)
    kept = "" if is_entered else f"; Digits did not write {folder.config_path}, so add it there yourself"
    click.echo(f"{version.path} can be served{kept}.")


@models.command()
@click.argument("name", required=False)
@folder_option
def default(name: str | None, folder: "ModelsFolder") -> None:
    """Let model NAME answer callers who name none, from the next start of `digits up`.

    Without NAME, print the model that does.
    """
    if name is None:
        click.echo(folder.default() or "No model is the default; the next `digits up` chooses one.")
    elif folder.choose(name) == READER_NAME:
        raise DigitServingError(f"{READER_NAME} can't be the default: it answers no callers")
    else:
        folder.set_default(name)
        click.echo(f"{name} is the default, from the next start of `digits up`.")


@models.command()
@folder_option
@click.option("--model", "name", metavar="NAME", help="Fail if models.config does not name this model.")
def check(folder: "ModelsFolder", name: str | None) -> None:
    """Correct models.config before a model server starts.

    Add models that have no entry, and leave out versions whose files are missing.
    """
    try:
        folder.prepare(click.echo)
        for each in folder.names():
            folder.adopt(each, click.echo)
    except OSError as error:
        reason = f"{folder.root} can't be changed ({error.strerror})"
        click.echo(f"{reason}; {folder.config_path} stays as it is.")
    if name and name not in folder.read_config().base_paths:
        raise DigitServingError(
            f"{folder.config_path} has no model named {name}; "
            "publish one with `digits train` or `digits export`"
        )


def _signature_check(public_key: Path) -> Callable[[Path], None]:
    with needs_extra("signing"):
        from digit_serving.releases import signatures

    return lambda version: signatures.verify(version, public_key)
