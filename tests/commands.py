"""Command lines of `digits`, checked without running them, and a fake `digits` that prints them."""

import os
from collections.abc import Sequence
from pathlib import Path
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


def fake_digits(folder: Path) -> dict[str, str]:
    """Write a program `digits` that prints its arguments; `digits train` ends with status $STATUS.

    Return the environment in which it is found.
    """
    (folder / "digits").write_text('#!/bin/sh\necho "$@"\n[ "$1" != train ] || exit "${STATUS:-0}"')
    (folder / "digits").chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}
