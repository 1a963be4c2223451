"""The page of the settings: every environment variable that something here reads."""

from collections.abc import Iterator

import click

from digit_client import _cli, _client
from digit_client.tfserving import client
from digit_serving.gateway.settings import Settings
from docs.reference import source
from docs.reference.markdown import joined, table

_HEADER = ("variable", "default", "")

_CLIENT = (
    ("DIGITS_URL", _client.DEFAULT_URL, "Whom `digits predict` and the HTTP clients ask."),
    ("DIGITS_API_KEY", "", "The key that they show a gateway that asks for one."),
    ("DIGITS_TIMEOUT", _client.DEFAULT_TIMEOUT, "Seconds that a call of theirs may take, with its retries."),
    ("DIGITS_MODEL_SERVER", client.DEFAULT_TARGET, "Whom `ModelServerClient` asks, over gRPC."),
)


def page() -> str:
    """The variables of the gateway, of the commands and of the client."""
    return joined(
        [
            "# The settings",
            "All are environment variables. `docker compose` has [some more]"
            "(../platform-engineer.md#with-docker).",
            "## The gateway",
            table(_HEADER, _gateway()),
            "## The commands",
            "Each is the option of the same name.",
            table(("variable", "default", "command", ""), _commands()),
            "## The client",
            table(_HEADER, ((f"`{name}`", _default(default), text) for name, default, text in _CLIENT)),
        ]
    )


def _gateway() -> Iterator[tuple[str, str, str]]:
    for name, text in source.fields(Settings):
        if name in Settings.model_fields:
            yield f"`DIGITS_{name.upper()}`", _default(Settings.model_fields[name].default), text


def _commands() -> Iterator[tuple[str, str, str, str]]:
    context = click.Context(_cli.main)
    for name in _cli.main.list_commands(context):
        command = _cli.main.get_command(context, name)
        assert command
        for option in command.params:
            if isinstance(option, click.Option) and option.envvar:
                yield (
                    f"`{option.envvar}`",
                    _default(option.to_info_dict()["default"]),
                    f"`digits {name}`",
                    option.help or "",
                )


def _default(value: object) -> str:
    text = ",".join(value) if isinstance(value, tuple) else "" if value is None else str(value)
    return f"`{text}`" if text else ""
