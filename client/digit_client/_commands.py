"""Commands of `digits`: a click group of entry points, each imported on first use."""

from importlib.metadata import entry_points
from importlib.util import find_spec

import click

from digit_core.errors import how_to_install
from digit_core.options import nearest

REQUIRED_EXTRAS = {
    "export": "training",
    "feedback": "feedback",
    "gateway": "gateway",
    "keys": "gateway",
    "model-server": "model-server",
    "models": "grpc",
    "read": "images",
    "score": "score",
    "train": "training",
    "up": "serve",
}
"""Optional dependencies (extra) that each command needs; `read` needs them for `--show`."""
_EXTRA_MODULES = {
    "feedback": "sqlalchemy",
    "gateway": "flask",
    "grpc": "grpc",
    "model-server": "waitress",
    "score": "pyarrow",
    "serve": "flask,waitress",
    "training": "matplotlib",
}
"""Modules whose presence shows that an extra is installed."""
_STOPPED = 130
"""Exit status after Ctrl-C, as in a shell: 128 plus the signal's number."""


class RegisteredCommands(click.Group):
    """Group of the commands that are registered as entry points `digits.commands`.

    The help lists the commands whose extras are installed, and names the others.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in self._names() if _can_run(name)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_commands(ctx, formatter)
        others = [f"{name} ({REQUIRED_EXTRAS[name]})" for name in self._names() if not _can_run(name)]
        if others:
            formatter.write_paragraph()
            formatter.write_text(f"Commands that need an extra: {', '.join(others)}.")

    def _names(self) -> list[str]:
        return sorted(entry.name for entry in entry_points(group="digits.commands"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for entry in entry_points(group="digits.commands", name=cmd_name):
            command = entry.load()
            assert isinstance(command, click.Command)
            return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in (names := self._names()):
            raise click.UsageError(f"there is no command {args[0]!r}; {nearest(args[0], names)}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            extra = REQUIRED_EXTRAS.get(ctx.invoked_subcommand or "")
            if extra is None:
                raise
            raise click.ClickException(
                f"`digits {ctx.invoked_subcommand}` needs digits[{extra}]; {how_to_install(extra)}"
            ) from error
        except KeyboardInterrupt:
            click.echo("Stopped.", err=True)
            ctx.exit(_STOPPED)


def _can_run(command: str) -> bool:
    """True if the extra that the command needs is installed."""
    extra = REQUIRED_EXTRAS.get(command) if command != "read" else None
    return extra is None or all(map(find_spec, _EXTRA_MODULES[extra].split(",")))
