"""Text for terminals: tables, fields, times and sizes."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

NONE = "–"
"""Cell without a value."""


def format_table(headings: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[str]) -> str:
    """Return aligned columns; those of `numbers` to the right."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if heading in numbers else cell.ljust(width)
            for heading, cell, width in zip(headings, cells, widths, strict=True)
        ).rstrip()
        for cells in [headings, *rows]
    )


def format_fields(fields: Iterable[tuple[str, str]]) -> str:
    """Return names and values, one field a line."""
    listed = list(fields)
    width = max((len(name) for name, _ in listed), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}".rstrip() for name, value in listed)


def format_time(time: datetime) -> str:
    """Return a time in this machine's time zone, to the minute."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M")


def format_size(size: int) -> str:
    """Return a number of bytes in kB or MB."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
