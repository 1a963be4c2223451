"""Output of `digits feedback ls`, `show` and `stats`: tables, and pictures as text."""

import io
from collections.abc import Iterable
from datetime import datetime

import numpy as np
from PIL import Image

from digit_client.artifact.task_card import NO_CLASS
from digit_serving.feedback.records import Agreement, Record
from digit_serving.text_tables import format_table

_NONE = "–"
_NO_CLASS = "(none)"
_SHADES = np.array(list(" ░▒▓█"))
_MAX_SIDE = 32

_RECORD_HEADINGS = (
    *("ANSWERED", "REQUEST", "INPUT", "MODEL", "VERSION", "PREDICTED", "CONFIDENCE", "LABEL", "SOURCE"),
)
_VERSION_HEADINGS = ("MODEL", "VERSION", "RECORDS", "LABELLED", "AGREEING")


def format_records(records: Iterable[Record]) -> str:
    """Return a table with a line for each record."""
    rows = [
        (
            _format_time(record.answered_at),
            record.request_id,
            _format_input(record),
            record.model,
            str(record.version),
            _format_label(record.predicted),
            f"{record.confidence:.1%}",
            _format_label(record.label),
            record.source or _NONE,
        )
        for record in records
    ]
    return format_table(_RECORD_HEADINGS, rows, numbers={"INPUT", "VERSION", "CONFIDENCE"})


def format_stats(stats: Iterable[Agreement]) -> str:
    """Return a table with a line for each version, and the share of the labelled records that agree."""
    rows = [
        (
            version.model,
            str(version.version),
            f"{version.records:,}",
            f"{version.labelled:,}",
            _format_agreement(version),
        )
        for version in stats
    ]
    return format_table(_VERSION_HEADINGS, rows, numbers=set(_VERSION_HEADINGS[1:]))


def format_record(record: Record) -> str:
    """Return the fields of a record, one a line, and its input as text."""
    labelled = f", {_format_time(record.labelled_at)}" if record.labelled_at else ""
    fields = {
        "request": record.request_id,
        "caller": record.caller or _NONE,
        "input": f"{_format_input(record)} ({record.kind})",
        "model": f"{record.model}, version {record.version}",
        "answered": _format_time(record.answered_at),
        "predicted": f"{_format_label(record.predicted)} ({record.confidence:.1%})",
        "is digit": _NONE if record.is_digit is None else f"{record.is_digit:.1%}",
        "label": _format_label(record.label) + labelled,
        "source": record.source or _NONE,
        "text": _NONE if record.text is None else repr(record.text),
        "original": "not kept" if record.original is None else f"{len(record.original) / 1e3:.1f} kB",
    }
    width = max(map(len, fields))
    lines = [f"{name.ljust(width)}  {value}" for name, value in fields.items()]
    return "\n".join([*lines, format_picture(record.input)])


def format_picture(png: bytes) -> str:
    """Return a picture as lines of shades, two characters a pixel, at most 32 pixels high and wide."""
    with Image.open(io.BytesIO(png)) as image:
        grey = image.convert("L")
    grey.thumbnail((_MAX_SIDE, _MAX_SIDE))
    shades = _SHADES[np.rint(np.asarray(grey) / 255 * (len(_SHADES) - 1)).astype(int)]
    return "\n".join("".join(np.repeat(row, 2)).rstrip() for row in shades)


def _format_input(record: Record) -> str:
    """Return the index of the picture, and the position of the digit in its reading after a dot."""
    return f"{record.index}.{record.position}" if record.kind == "read" else str(record.index)


def _format_label(label: str | None) -> str:
    return {None: _NONE, NO_CLASS: _NO_CLASS}.get(label) or str(label)


def _format_agreement(version: Agreement) -> str:
    if not version.labelled:
        return _NONE
    return f"{version.agreeing:,} ({version.share:.1%})"


def _format_time(time: datetime) -> str:
    return time.astimezone().strftime("%Y-%m-%d %H:%M")
