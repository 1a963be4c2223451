"""Command-line flags of `tensorflow_model_server`, with the types and defaults that flags.csv lists."""

import csv
from collections.abc import Callable, Sequence
from importlib.resources import files
from types import SimpleNamespace
from typing import Any

Options = SimpleNamespace
_PARSERS: dict[str, Callable[[str], Any]] = {
    "bool": lambda text: {"true": True, "1": True, "false": False, "0": False}[text.lower()],
    "int": int,
    "float": float,
    "string": str,
}


def table() -> dict[str, dict[str, str]]:
    """Return the row of flags.csv of each flag by name.

    `supported` is "no" for a flag that the drop-in accepts and ignores.
    """
    text = files("digit_serving.model_server").joinpath("flags.csv").read_text()
    return {row["flag"]: row for row in csv.DictReader(text.splitlines())}


def parse(args: Sequence[str]) -> Options:
    """Parse `--flag=value`, `--flag value` and `--switch`, with one dash or two.

    Raises ValueError, which names the argument, for an unknown flag or a value of another type.
    """
    flags, remaining = table(), iter(args)
    options = {name: _PARSERS[flag["type"]](flag["default"]) for name, flag in flags.items()}
    for arg in remaining:
        name, equals, text = arg.lstrip("-").partition("=")
        if name not in flags or not arg.startswith("-"):
            raise ValueError(f"unknown argument: {arg}")
        kind = flags[name]["type"]
        if not equals:
            text = "true" if kind == "bool" else next(remaining, "")
        try:
            options[name] = _PARSERS[kind](text)
        except (KeyError, ValueError):
            raise ValueError(f"invalid value {text!r} for flag {name}; expected type: {kind}") from None
    return Options(**options)
