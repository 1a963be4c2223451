"""The flags of `tensorflow_model_server`: flags.csv has them all, with the original's types and defaults."""

import csv
from collections.abc import Callable, Sequence
from importlib.resources import files
from types import SimpleNamespace
from typing import Any

Options = SimpleNamespace
_READERS: dict[str, Callable[[str], Any]] = {
    "bool": lambda text: {"true": True, "1": True, "false": False, "0": False}[text.lower()],
    "int": int,
    "float": float,
    "string": str,
}


def table() -> dict[str, dict[str, str]]:
    """Type, default, and whether it acts here, of every flag by its name."""
    text = files("digit_serving.model_server").joinpath("flags.csv").read_text()
    return {row["flag"]: row for row in csv.DictReader(text.splitlines())}


def parse(args: Sequence[str]) -> Options:
    """`--flag=value`, `--flag value` or `--switch`, with one dash or two; ValueError names what is unfit."""
    flags, remaining = table(), iter(args)
    options = {name: _READERS[flag["type"]](flag["default"]) for name, flag in flags.items()}
    for arg in remaining:
        name, given, text = arg.lstrip("-").partition("=")
        if name not in flags or not arg.startswith("-"):
            raise ValueError(f"unknown argument: {arg}")
        kind = flags[name]["type"]
        if not given:
            text = "true" if kind == "bool" else next(remaining, "")
        try:
            options[name] = _READERS[kind](text)
        except (KeyError, ValueError):
            raise ValueError(f"couldn't interpret value {text!r} for flag {name}") from None
    return Options(**options)
