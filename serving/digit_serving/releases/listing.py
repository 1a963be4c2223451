"""The published versions for a terminal and for programs, and the card of one of them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from digit_serving.releases.config import MODEL_NAME
from digit_serving.releases.versions import Published

_HEADINGS = ("VERSION", "PUBLISHED", "ACCURACY", "STATE", "LABELS", "SIZE")
_NONE = "–"


@dataclass(frozen=True, slots=True)
class Row:
    """A version. `published` (ISO 8601) and `accuracy` (0..1) are its card's, and None where that lacks them.

    `state` is None where the server doesn't know the version, or no server answers.
    """

    version: int
    published: Any
    accuracy: Any
    state: str | None
    labels: list[str]
    bytes: int


def row(version: Published, labels: Mapping[str, int], states: Mapping[int, str]) -> Row:
    """What there is to tell about a version."""
    card = version.card()
    return Row(
        version.number,
        card.get("created"),
        card.get("accuracy"),
        states.get(version.number),
        sorted(label for label, number in labels.items() if number == version.number),
        version.size(),
    )


def table(rows: Sequence[Row]) -> str:
    """A line for each version under a line of headings; numbers are set to the right."""
    cells = [_HEADINGS, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(_line(line, widths) for line in cells)


def document(rows: Sequence[Row], server: str, reachable: bool) -> str:
    """The same as a JSON object."""
    versions = [asdict(row) for row in rows]
    return json.dumps(
        {"model": MODEL_NAME, "server": server, "reachable": reachable, "versions": versions}, indent=2
    )


def card(card: Mapping[str, Any]) -> str:
    """A model card, a figure on each line."""
    figures = list(_figures(card, ""))
    width = max((len(name) for name, _ in figures), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}".rstrip() for name, value in figures)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        str(row.version),
        _time(row.published),
        f"{row.accuracy:.4f}" if isinstance(row.accuracy, float) else _NONE,
        row.state or _NONE,
        ", ".join(row.labels) or _NONE,
        _size(row.bytes),
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    version, *texts, size = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return "  ".join((version.strip().rjust(widths[0]), *texts, size.strip().rjust(widths[-1])))


def _time(text: Any) -> str:
    try:
        return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M")
    except (TypeError, ValueError):
        return _NONE


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _figures(card: Mapping[str, Any], indent: str) -> Iterator[tuple[str, str]]:
    for name, value in card.items():
        title = indent + name.replace("_", " ")
        if isinstance(value, Mapping):
            yield title, ""
            yield from _figures(value, indent + "  ")
        else:
            yield title, _text(value)


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: _NONE, True: "yes", False: "no"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
