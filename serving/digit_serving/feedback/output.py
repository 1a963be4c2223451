"""Output of `digits feedback`: tables and pictures for a terminal, and folders of pictures."""

import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from digit_core import images
from digit_core.artifact.task_card import NO_CLASS
from digit_core.artifact.versions import check_writable
from digit_core.errors import ImageError
from digit_serving.commands import NONE, format_fields, format_size, format_table, format_time
from digit_serving.errors import DigitServingError
from digit_serving.feedback.records import Agreement, Record

_PARTS = {False: "train", True: "held-out"}
"""Names of the folders, by `held_out`."""

_NO_CLASS = "(none)"
_SHADES = np.array(list(" ░▒▓█"))
_MAX_SIDE = 32

_RECORD_HEADINGS = (
    *("ANSWERED", "REQUEST", "INPUT", "MODEL", "VERSION", "PREDICTED", "CONFIDENCE", "LABEL", "SOURCE"),
)
_VERSION_HEADINGS = ("MODEL", "VERSION", "CALLER", "RECORDS", "LABELLED", "AGREEING")


def format_records(records: Iterable[Record]) -> str:
    """Return a table with a line for each record."""
    rows = [
        (
            format_time(record.answered_at),
            record.request_id,
            _format_input(record),
            record.model,
            str(record.version),
            _format_label(record.predicted),
            f"{record.confidence:.1%}",
            _format_label(record.label),
            record.source or NONE,
        )
        for record in records
    ]
    return format_table(_RECORD_HEADINGS, rows, numbers={"INPUT", "VERSION", "CONFIDENCE"})


def format_stats(stats: Iterable[Agreement]) -> str:
    """Return a table with a line for each version and caller, and the share of labelled inputs that agree."""
    rows = [
        (
            version.model,
            str(version.version),
            version.caller or NONE,
            f"{version.records:,}",
            f"{version.labelled:,}",
            f"{version.agreeing:,} ({version.agreeing / version.labelled:.1%})" if version.labelled else NONE,
        )
        for version in stats
    ]
    return format_table(_VERSION_HEADINGS, rows, numbers={*_VERSION_HEADINGS} - {"MODEL", "CALLER"})


def format_record(record: Record) -> str:
    """Return the fields of a record, one a line, and its input as text."""
    labelled = f", {format_time(record.labelled_at)}" if record.labelled_at else ""
    fields = {
        "request": record.request_id,
        "caller": record.caller or NONE,
        "input": f"{_format_input(record)} ({record.kind})",
        "model": f"{record.model}, version {record.version}",
        "answered": format_time(record.answered_at),
        "predicted": f"{_format_label(record.predicted)} ({record.confidence:.1%})",
        "is digit": NONE if record.is_digit is None else f"{record.is_digit:.1%}",
        "label": _format_label(record.label) + labelled,
        "source": record.source or NONE,
        "text": NONE if record.text is None else repr(record.text),
        "original": "not kept" if record.original is None else format_size(len(record.original)),
    }
    return f"{format_fields(fields.items())}\n{format_picture(record.input)}"


def format_picture(png: bytes) -> str:
    """Return a picture as lines of shades, two characters a pixel, at most 32 pixels high and wide."""
    with Image.open(io.BytesIO(png)) as image:
        grey = image.convert("L")
    grey.thumbnail((_MAX_SIDE, _MAX_SIDE))
    shades = _SHADES[np.rint(np.asarray(grey) / 255 * (len(_SHADES) - 1)).astype(int)]
    return "\n".join("".join(np.repeat(row, 2)).rstrip() for row in shades)


def write_folders(records: Iterable[Record], folder: Path) -> dict[str, Counter[str]]:
    """Write each picture as PNG into `train` or `held-out`, in a folder of its label.

    A picture is the original of a record that has one, else the input. Records without a class are left out.
    The folder appears when it is complete. Return the number of pictures by label, of each part. Raise
    DigitServingError or OSError.
    """
    if folder.exists():
        raise DigitServingError(f"{folder} exists")
    counts: dict[str, Counter[str]] = {part: Counter() for part in _PARTS.values()}
    check_writable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        unfinished = Path(temporary) / folder.name
        for record in records:
            if not record.label:
                continue
            # Labels are words of the model's author; no word may lead out of the folder.
            if record.label.startswith(".") or Path(record.label).name != record.label:
                raise DigitServingError(f"the label {record.label!r} cannot name a folder")
            part = _PARTS[bool(record.held_out)]
            target = unfinished / part / record.label / f"{_name(record)}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(_picture(record))
            counts[part][record.label] += 1
        if not any(counts.values()):
            raise DigitServingError("no answer has a label of a class")
        unfinished.rename(folder)
    return counts


def side_by_side(records: Iterable[Record]) -> Image.Image:
    """Return the inputs in one row. Raise DigitServingError if they have several shapes."""
    inputs = [np.asarray(Image.open(io.BytesIO(record.input))) for record in records]
    if len({pixels.shape for pixels in inputs}) > 1:
        raise DigitServingError("the inputs have several shapes; they are of different models or tasks")
    return Image.fromarray(np.hstack(inputs))


def _format_input(record: Record) -> str:
    """Return the index of the picture, and the position of the digit in its reading after a dot."""
    return f"{record.index}.{record.position}" if record.kind == "read" else str(record.index)


def _format_label(label: str | None) -> str:
    return {None: NONE, NO_CLASS: _NO_CLASS}.get(label) or str(label)


def _picture(record: Record) -> bytes:
    """Return the original as serving decodes it, upright and on white, or the input."""
    # The picture of a reading shows more than this input.
    if record.original is None or record.kind == "read":
        return record.input
    try:
        image = Image.fromarray(images.decode(record.original)).convert("RGBA")
    except ImageError:
        return record.input
    file = io.BytesIO()
    Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB").save(file, "PNG")
    return file.getvalue()


def _name(record: Record) -> str:
    # A request ID may contain colons, which are not allowed in file names everywhere.
    name = f"{record.request_id.replace(':', '=')}-{record.index}-{record.position}"
    # Callers choose request IDs: two may have the same.
    return f"{record.caller}@{name}" if record.caller else name
