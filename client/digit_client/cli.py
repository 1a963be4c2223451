"""The `digits` command: `predict`, and whatever subcommands the other rooms register."""

from importlib.metadata import EntryPoint, entry_points

import click


class RegisteredCommands(click.Group):
    """A group whose subcommands are the entry points `digits.commands`, each imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(entry.name for entry in entry_points(group="digits.commands"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for entry in entry_points(group="digits.commands", name=cmd_name):
            return _load(entry)
        return None


def _load(entry: EntryPoint) -> click.Command:
    command = entry.load()
    assert isinstance(command, click.Command)
    return command


@click.command(cls=RegisteredCommands)
@click.version_option(package_name="digit-serving", prog_name="digits")
def main() -> None:
    """Read handwritten digits: train a model, serve it, ask it."""


@click.command()
def predict() -> None:
    """Read the digit in each IMAGE."""
