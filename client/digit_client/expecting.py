"""Options of commands that read: what is known of the numbers before."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


class _Expected(click.ParamType[Any]):
    """Pattern, or the valid numbers of @FILE."""

    name = "pattern"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str) or not value.startswith("@"):
            return value
        try:
            return Path(value[1:]).read_text(encoding="utf-8-sig").split()
        except (OSError, UnicodeDecodeError) as error:
            self.fail(f"{value}: {error}", param, ctx)


_OPTIONS = (
    click.option(
        "--expect",
        type=_Expected(),
        metavar="PATTERN",
        help="Text that the number must look like: # is a digit, #{4} and #{4,6} so many, | parts "
        "alternatives; or date, amount, or @FILE of the valid numbers, one a line.",
    ),
    click.option(
        "--check", help="Check of the number's digits: luhn, mod11, mod97, or a range: 48210.., 0..9999."
    ),
    click.option(
        "--min-confidence",
        type=click.FloatRange(0, 1),
        help="Least probability that a reading is right: others are refused as unsure.",
    ),
)


def expecting_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options `--expect`, `--check` and `--min-confidence`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
