"""Command line: `digits gateway` and `digits keys`."""

from pathlib import Path

import click

from digit_serving.commands import click_errors

_file_option = click.option(
    "--file",
    required=True,
    envvar="DIGITS_API_KEYS",
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="The gateway's file of API keys.",
)


@click.command()
def gateway() -> None:
    """Serve the HTTP API: images in, predictions out.

    Settings are environment variables such as DIGITS_HOST, DIGITS_PORT and DIGITS_MODEL_SERVER; see
    docs/reference/settings.md.
    """
    from pydantic import ValidationError

    from digit_serving.gateway.server import serve
    from digit_serving.gateway.settings import Settings
    from digit_serving.gateway.startup_checks import check

    try:
        settings = Settings()
    except ValidationError as error:
        problems = "; ".join(
            f"DIGITS_{str(part['loc'][0]).upper()}: {part['msg'].removeprefix('Value error, ')}"
            for part in error.errors()
        )
        raise click.UsageError(problems) from error
    with click_errors():
        check(settings)
    serve(settings)


@click.group()
def keys() -> None:
    """Manage the API keys that the gateway accepts."""


@keys.command()
@click.argument("name")
@_file_option
@click.option("--may-label", is_flag=True, help="Let the key show stored answers and label them, at /label.")
def add(name: str, file: Path, may_label: bool) -> None:
    """Create a key named NAME and print it; it can't be shown again, since only its hash is stored."""
    from digit_serving.gateway.auth import KeyFile

    with click_errors():
        click.echo(KeyFile(file).add(name, may_label=may_label))


@keys.command()
@_file_option
def ls(file: Path) -> None:
    """List the names of the keys; "label" follows the name of a key that may label stored answers."""
    from digit_serving.gateway.auth import KeyFile

    with click_errors():
        for key in KeyFile(file).read().values():
            click.echo(f"{key.name}{' label' * key.may_label}")


@keys.command()
@click.argument("name")
@_file_option
def remove(name: str, file: Path) -> None:
    """Revoke the key named NAME; gateways refuse it within a second."""
    from digit_serving.gateway.auth import KeyFile

    with click_errors():
        KeyFile(file).remove(name)
