"""Command lines of `digits`, checked without running them."""

from collections.abc import Sequence
from typing import Any

import click

from digit_client.__main__ import main


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the parameters of `digits ARGUMENTS`, which must be valid."""
    command: click.Command | None = main
    name, rest = "digits", list(arguments)
    while isinstance(command, click.Group):
        name, *rest = rest
        command = command.get_command(click.Context(command), name)
    assert command, f"digits has no command {name}"
    return command.make_context(name, rest).params
