"""Command line: `digits gateway` and `digits keys`."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from digit_serving import sockets
from digit_serving.commands import PATH, click_errors, format_time, option
from digit_serving.errors import DigitServingError, SettingError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from digit_serving.gateway.settings import Settings

_file_option = option(
    "--file", required=True, envvar="DIGITS_API_KEYS", type=PATH, help="The gateway's file of API keys."
)


@click.command()
def gateway() -> None:
    """Serve the HTTP API: images in, predictions out.

    Settings are environment variables such as DIGITS_HOST, DIGITS_PORT and DIGITS_MODEL_SERVER;
    digit_serving/gateway/settings.py, and the settings.py of each feature, explain all.
    """
    from pydantic import ValidationError

    from digit_serving.gateway.server import serve
    from digit_serving.gateway.settings import Settings

    try:
        settings = Settings()
    except ValidationError as error:
        raise click.UsageError("; ".join(map(_describe, error.errors()))) from error
    with click_errors():
        _check(settings)
    serve(settings)


def _describe(error: "ErrorDetails") -> str:
    name = f"DIGITS_{str(error['loc'][0]).upper()}"
    if error["type"] == "path_not_file":
        return f"{name}: {error['input']} is not a file"
    return f"{name}: {error['msg'].removeprefix('Value error, ')}"


def _check(settings: "Settings") -> None:
    """Try to use each setting whose validation needs the system, as the workers will. Raise SettingError."""
    from limits.errors import ConfigurationError

    from digit_serving.gateway import tls
    from digit_serving.gateway.auth import KeyFile
    from digit_serving.gateway.rate_limit import RateLimiter

    with _setting_errors("DIGITS_HOST, DIGITS_PORT", OSError):
        sockets.listen(sockets.resolve(settings.host), settings.port).close()
    with _setting_errors("DIGITS_API_KEYS", OSError, DigitServingError):
        if settings.api_keys:
            KeyFile(settings.api_keys).read()
    with _setting_errors("DIGITS_MODELS_FILE", SettingError):
        _ = settings.by_model
    with _setting_errors("DIGITS_TLS_CERTIFICATE, DIGITS_TLS_KEY", OSError):
        if settings.tls_certificate:
            tls.server_context(settings.tls_certificate, settings.tls_key)
    names = ("DIGITS_MODEL_SERVER_CA", "DIGITS_MODEL_SERVER_CERTIFICATE", "DIGITS_MODEL_SERVER_KEY")
    with _setting_errors(", ".join(names), OSError):
        tls.channel_credentials(settings)
    if settings.rate_limit or settings.api_keys:
        with _setting_errors("DIGITS_RATE_LIMIT_STORE", ConfigurationError):
            RateLimiter(settings.rate_limit, settings.rate_limit_store)


@contextmanager
def _setting_errors(names: str, *errors: type[Exception]) -> Iterator[None]:
    try:
        yield
    except errors as error:
        raise SettingError(f"{names}: {error}") from error


def _parse_end(_ctx: click.Context, _option: click.Parameter, value: str | None) -> datetime | None:
    """Parse a time in ISO 8601, local if it has no time zone. Raise BadParameter if it has passed."""
    if value is None:
        return None
    try:
        end = datetime.fromisoformat(value).astimezone()
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a date, such as 2027-01-31") from error
    if end <= datetime.now(UTC):
        raise click.BadParameter(f"{value} has passed; choose a later time")
    return end


def _parse_limits(_ctx: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    from digit_serving.gateway.settings import parse_limits

    try:
        if value:
            parse_limits(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return value and value.replace(" ", "")


_until_option = click.option(
    "--until", metavar="DATE", callback=_parse_end, help="First moment at which the key is no longer valid."
)
_limits_option = click.option(
    "--rate-limit",
    "limits",
    metavar="LIMITS",
    callback=_parse_limits,
    help="The key's own limits in place of DIGITS_RATE_LIMIT, such as 10/second;1000/hour.",
)


@click.group()
def keys() -> None:
    """Manage the API keys that the gateway accepts."""


@keys.command()
@click.argument("name")
@_file_option
@click.option("--may-label", is_flag=True, help="Let the key show stored answers and label them, at /label.")
@_until_option
@_limits_option
def add(name: str, file: Path, may_label: bool, until: datetime | None, limits: str | None) -> None:
    """Create a key named NAME and print it; it can't be shown again."""
    from digit_serving.gateway.auth import KeyFile

    with click_errors():
        click.echo(KeyFile(file).add(name, may_label=may_label, until=until, limits=limits or ""))


@keys.command()
@click.argument("name")
@_file_option
@_until_option
@_limits_option
def change(name: str, file: Path, **given: Any) -> None:
    """Change the end or the limits of the key named NAME."""
    from digit_serving.gateway.auth import KeyFile

    if not (chosen := {field: value for field, value in given.items() if value is not None}):
        raise click.UsageError("Nothing would change; give --until, --rate-limit or both.")
    with click_errors():
        KeyFile(file).change(name, **chosen)


@keys.command()
@_file_option
def ls(file: Path) -> None:
    """List the keys by name, with their end and limits; "label" marks those that may label answers."""
    from digit_serving.gateway.auth import KeyFile

    with click_errors():
        for key in KeyFile(file).read().values():
            end = f" {'ended' if key.has_ended else 'until'} {format_time(key.until)}" if key.until else ""
            limits = f" limit {key.limits}" if key.limits else ""
            click.echo(f"{key.name}{' label' * key.may_label}{end}{limits}")


@keys.command()
@click.argument("name")
@_file_option
def remove(name: str, file: Path) -> None:
    """Revoke the key named NAME; gateways refuse it within a second."""
    from digit_serving.gateway.auth import KeyFile

    with click_errors():
        KeyFile(file).remove(name)
