"""Tables of docs/reference, rendered from `Settings` and click: python -m docs.render."""

import inspect
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import griffe

from digit_client.__main__ import main
from digit_serving.gateway.settings import Settings

REFERENCE = Path(__file__).parent / "reference"
SETTINGS, COMMANDS = REFERENCE / "settings.md", REFERENCE / "cli.md"
# Number of commands from which on a shared option is described once.
_COMMON = 3

_HEADER = ("option", "meaning")
Row = tuple[str, ...]


def render(page: str) -> str:
    """Return a page with its tables, which lie between two comments, made anew."""
    tables = {"gateway": _gateway, "variables": _variables, "common": _common, "commands": _commands}

    def replace(match: re.Match[str]) -> str:
        return f"{match[1]}\n\n{tables[match[2]]()}\n\n{match[3]}"

    return re.sub(r"(<!-- make reference: (\w+) -->).*?(<!-- end -->)", replace, page, flags=re.DOTALL)


def gateway_settings() -> Iterator[Row]:
    """Yield variable, default and meaning of each field of `Settings`."""
    documented = griffe.load(Settings.__module__)[Settings.__name__].members
    for name, field in Settings.model_fields.items():
        docstring = documented[name].docstring
        yield f"`DIGITS_{name.upper()}`", _code(field.default), docstring.value if docstring else ""


def _gateway() -> str:
    return _table(("variable", "default", "meaning"), gateway_settings())


def _variables() -> str:
    options: dict[Row, list[str]] = {}
    for name, command in _walk(main, ""):
        for option in _options(command):
            if option.envvar:
                key = f"`{option.envvar}`", _default(option), f"`{option.opts[-1]}`"
                options.setdefault(key, []).append(name.partition(" ")[0])
    rows = ((*key[:2], f"{key[2]} of {_enumerate(groups)}") for key, groups in options.items())
    return _table(("variable", "default", "option"), rows)


def _common() -> str:
    common = _common_options()
    rows = (_row(option) for _, command in _walk(main, "") for option in _options(command))
    return _table(_HEADER, dict.fromkeys(row for row in rows if row in common))


def _commands() -> str:
    common = _common_options()
    sections = []
    for name, command in _walk(main, "digits"):
        usage = " ".join(command.collect_usage_pieces(click.Context(command)))
        rows = [_row(option) for option in _options(command)]
        parts = [f"### {name}", f"`{name} {usage}`", inspect.cleandoc(command.help or "")]
        if own := [row for row in rows if row not in common]:
            parts.append(_table(_HEADER, own))
        if shared := [row[0].strip("`").partition(" ")[0] for row in rows if row in common]:
            parts.append(f"Common options: {_enumerate(shared)}.")
        sections.append("\n\n".join(parts))
    return "\n\n".join(sections)


def _common_options() -> set[Row]:
    counts = Counter(_row(option) for _, command in _walk(main, "") for option in _options(command))
    return {row for row, count in counts.items() if count >= _COMMON}


def _walk(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    """Yield each command that is no group, with its name."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command, full = group.get_command(context, name), f"{path} {name}".strip()
        assert command
        if isinstance(command, click.Group):
            yield from _walk(command, full)
        else:
            yield full, command


def _options(command: click.Command) -> list[click.Option]:
    return [each for each in command.params if isinstance(each, click.Option)]


def _row(option: click.Option) -> Row:
    """Return the option with its metavar, and its meaning, default and variable."""
    metavar = option.make_metavar(click.Context(click.Command(""))).removesuffix(" RANGE").replace("|", "/")
    flag = option.opts[-1] if option.is_flag else f"{option.opts[-1]} {metavar}"
    default, variable = _default(option), f"`{option.envvar}`" if option.envvar else ""
    meaning = _help(option)[0].removesuffix(".")
    notes = (default and f"default {default}", variable and f"variable {variable}")
    return f"`{flag}`", "; ".join(filter(None, (meaning, *notes)))


def _default(option: click.Option) -> str:
    described = _help(option)[1]
    return described or ("" if option.is_flag else _code(option.to_info_dict()["default"]))


def _help(option: click.Option) -> tuple[str, str]:
    """Return the meaning of an option, and the default that its help text describes."""
    meaning, _, default = " ".join((option.help or "").split()).partition(" [default: ")
    return meaning, default.removesuffix("]")


def _code(value: object) -> str:
    text = ",".join(map(str, value)) if isinstance(value, tuple) else "" if value is None else str(value)
    return f"`{text}`" if text else ""


def _enumerate(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in dict.fromkeys(names))


def _table(header: Row, rows: Iterable[Row]) -> str:
    lines = [f"| {' | '.join(map(_escape, row))} |" for row in (header, *rows)]
    return "\n".join([lines[0], "|---" * len(header) + "|", *lines[1:]])


def _escape(cell: str) -> str:
    """Return a cell in one line, in which a bar does not end it and `<` begins no tag."""
    return " ".join(cell.replace("|", "&#124;").replace("<", "&lt;").split())


if __name__ == "__main__":
    for each in (SETTINGS, COMMANDS):
        each.write_text(render(each.read_text()))
