"""Lists of docs/reference, rendered from `Settings` and click where a page has their comment."""

import inspect
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import click
import griffe

from digit_client.__main__ import main
from digit_serving.gateway.settings import Settings

Entry = tuple[str, str]
"""A setting or an option, and its meaning."""


def render(page: str) -> str:
    """Return a page with a list in place of each line that ends with the comment naming it.

    GitHub, which renders no list, shows the line.
    """
    lists = {"gateway": _gateway, "common": _common, "commands": _commands}
    return re.sub(r"^.*<!-- list: (\w+) -->$", lambda match: lists[match[1]](), page, flags=re.MULTILINE)


def gateway_settings() -> Iterator[Entry]:
    """Yield variable with default, and meaning, of each field of `Settings`."""
    for name, field in Settings.model_fields.items():
        owner = next(kind for kind in Settings.__mro__ if name in kind.__annotations__)
        docstring = griffe.load(owner.__module__)[owner.__name__].members[name].docstring
        default = _text(field.default)
        assignment = f"DIGITS_{name.upper()}" + (f"={default}" if default else "")
        yield f"`{assignment}`", docstring.value if docstring else ""


def _gateway() -> str:
    return _list(gateway_settings())


def _common() -> str:
    return _list(_common_options())


def _commands() -> str:
    common = _common_options()
    sections = []
    for name, command in _walk(main, "digits"):
        _, *arguments = command.collect_usage_pieces(click.Context(command))
        entries = [_entry(option) for option in _options(command)]
        parts = [
            f"### {name}",
            f"`{' '.join((name.split()[-1], *arguments))}`" if arguments else "",
            inspect.cleandoc(command.help or "").partition("\n\n")[0],
        ]
        parts.append(_list(entry for entry in entries if entry not in common))
        if shared := [place for place, entry in enumerate(common) if entry in entries]:
            parts.append(f"*Shared*: {_ranges(shared, [_flag(name) for name, _ in common])}.")
        sections.append("\n\n".join(filter(None, parts)))
    return "\n\n".join(sections)


def _common_options() -> list[Entry]:
    """Return options of several commands; of one with several meanings the most common."""
    entries = [_entry(option) for _, command in _walk(main, "") for option in _options(command)]
    counts = Counter(entries)
    meanings: dict[str, Entry] = {}
    for entry, count in counts.most_common():
        if count > 1:
            meanings.setdefault(_flag(entry[0]), entry)
    return [entry for entry in counts if entry in meanings.values()]


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


def _entry(option: click.Option) -> Entry:
    """Return the option with its default, or else its metavar, and its meaning and variable."""
    meaning, _, described = " ".join((option.help or "").split()).partition(" [default: ")
    default = "" if option.is_flag or described else _text(option.to_info_dict()["default"])
    flag = option.opts[-1]
    if default and not isinstance(option.type, click.Choice):
        flag += f"={default}"
    elif not option.is_flag:
        flag += f" {option.make_metavar(click.Context(click.Command(''))).removesuffix(' RANGE')}"
        described = described.removesuffix("]") or (default and f"`{default}`")
    default_note = f"default {described}" if described else ""
    variable_note = f"`{option.envvar}`" if option.envvar else ""
    return f"`{flag}`", "; ".join(filter(None, (meaning.removesuffix("."), default_note, variable_note)))


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else "" if value is None else str(value)


def _flag(name: str) -> str:
    return re.split("[ =]", name.strip("`"))[0]


def _ranges(places: Sequence[int], flags: Sequence[str]) -> str:
    """Return the flags at these places; of three or more in succession the first and the last."""
    runs = [list(run) for _, run in groupby(places, key=lambda place: place - places.index(place))]
    shown = (
        f"`{flags[run[0]]}` to `{flags[run[-1]]}`"
        if len(run) > 2
        else ", ".join(f"`{flags[place]}`" for place in run)
        for run in runs
    )
    return ", ".join(shown)


def _list(entries: Iterable[Entry]) -> str:
    # Outside of code, `<` would begin a tag.
    return "\n".join(f"- {name}: {' '.join(text.replace('<', '&lt;').split())}" for name, text in entries)
