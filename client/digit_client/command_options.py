"""Options of commands that predict or read, made from the descriptions of a call's options."""

import functools
import tomllib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeAlias

import click

from digit_core.options import Option, described, quoted

Command: TypeAlias = Callable[..., None]


class _Value(click.ParamType[Any]):
    """Type of a described option for click; a form is a file, a pattern may name one by @FILE."""

    name = "text"

    def __init__(self, option: Option) -> None:
        self._option = option

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        is_form = self._option.schema.get("type") == "object"
        is_file = self._option.metavar == "PATTERN" and isinstance(value, str) and value.startswith("@")
        try:
            if is_form:
                # The clients check the fields.
                return tomllib.loads(Path(value).read_text(encoding="utf-8"))
            if is_file:
                value = _read_numbers(Path(value[1:]))
            return self._option.parse(value)
        except OSError as error:
            self.fail(f"{value} can't be read: {error.strerror}", param, ctx)
        except tomllib.TOMLDecodeError as error:
            self.fail(f"{value} is no TOML file: {error}", param, ctx)
        except ValueError as error:
            self.fail(f"{value}: {error}" if is_file or is_form else str(error), param, ctx)


def _read_numbers(path: Path) -> list[str]:
    """Return the numbers in a file, one on each line. Raise ValueError with the line that has none."""
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    numbers = [line.strip() for line in lines]
    for place, number in enumerate(numbers, 1):
        if number and not (number.isascii() and number.isdigit()):
            raise ValueError(f"line {place} must have one number, in digits, not {quoted(number)}")
    return [number for number in numbers if number]


def adding(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return one decorator that adds these arguments and options, in their order."""
    return lambda command: functools.reduce(lambda made, add: add(made), reversed(options), command)


def described_options(kind: Any, without: Collection[str] = ("include",)) -> Callable[[Command], Command]:
    """Return a decorator that adds the described options to a command, such as `--min-confidence`."""
    return adding(*(_make(name, option) for name, option in described(kind).items() if name not in without))


def _make(name: str, option: Option) -> Callable[[Command], Command]:
    # Users would take `--label` for a class.
    declared = ("--version-label", "label") if name == "label" else (f"--{name.replace('_', '-')}", name)
    text = option.description
    if option.metavar == "PATTERN":
        text += " @FILE names a file with these numbers, one per line."
    if option.schema.get("type") == "object":
        text += " A file in TOML, with a table for each field."
    if option.schema.get("type") == "boolean":
        return click.option(*declared, is_flag=True, default=None, help=text)
    if only := option.schema.get("const"):
        return click.option(*declared, is_flag=True, flag_value=only, default=None, help=text)
    if option.repeats:
        # Each value is a tuple with one item.
        return click.option(
            *declared,
            type=_Value(option),
            multiple=True,
            callback=lambda _, __, given: tuple(item for items in given for item in items) or None,
            metavar=option.metavar,
            help=text,
        )
    return click.option(*declared, type=_Value(option), metavar=option.metavar, help=text)
