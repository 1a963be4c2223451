"""The page of the commands: what each says when it is asked for help."""

import click
from click.testing import CliRunner

from digit_client._cli import main
from docs.reference.markdown import code, joined

_WIDTH = 100


def page() -> str:
    """The help of `digits` and of each of its commands."""
    names = main.list_commands(click.Context(main))
    return joined(["# The commands", _help(), *(f"## digits {name}\n\n{_help(name)}" for name in names)])


def _help(*command: str) -> str:
    done = CliRunner().invoke(main, [*command, "--help"], prog_name="digits", terminal_width=_WIDTH)
    return code(f"$ digits {' '.join([*command, '--help'])}\n{done.output}")
