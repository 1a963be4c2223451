"""Tables of text, for terminals."""

from collections.abc import Collection, Sequence


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
