"""`digits gateway` and `digits keys`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

_file_option = click.option(
    "--file",
    required=True,
    envvar="DIGITS_API_KEYS",
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="The gateway's file of keys.",
)


@click.command()
def gateway() -> None:
    """Answer HTTP requests with the digits on their images.

    Set by environment variables: DIGITS_HOST, DIGITS_PORT, DIGITS_MODEL_SERVER and more; see
    docs/reference/settings.md.
    """
    from pydantic import ValidationError

    from digit_serving.gateway.preflight import UnusableSettingError, check
    from digit_serving.gateway.server import serve
    from digit_serving.gateway.settings import Settings

    try:
        settings = Settings()
        check(settings)
    except ValidationError as error:
        problems = "; ".join(
            f"DIGITS_{str(part['loc'][0]).upper()}: {part['msg']}" for part in error.errors()
        )
        raise click.UsageError(problems) from error
    except UnusableSettingError as error:
        raise click.UsageError(str(error)) from error
    serve(settings)


@click.group()
def keys() -> None:
    """Which keys the gateway lets in, by their names."""


@keys.command()
@click.argument("name")
@_file_option
def add(name: str, file: Path) -> None:
    """Make a key called NAME and print it, this once: only its hash is kept."""
    from digit_serving.gateway.auth import KeyFile

    with _plain_errors():
        click.echo(KeyFile(file).add(name))


@keys.command()
@_file_option
def ls(file: Path) -> None:
    """List the keys' names."""
    from digit_serving.gateway.auth import KeyFile

    with _plain_errors():
        for name in KeyFile(file).read():
            click.echo(name)


@keys.command()
@click.argument("name")
@_file_option
def remove(name: str, file: Path) -> None:
    """Forget the key called NAME: within a second nobody gets in with it."""
    from digit_serving.gateway.auth import KeyFile

    with _plain_errors():
        KeyFile(file).remove(name)


@contextmanager
def _plain_errors() -> Iterator[None]:
    from digit_serving.gateway.auth import KeyFileError

    try:
        yield
    except (KeyFileError, OSError) as error:
        raise click.ClickException(str(error)) from error
