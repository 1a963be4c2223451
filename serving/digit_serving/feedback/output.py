"""Output of `digits feedback`: tables for a terminal, and folders of pictures."""

import io
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from digit_core.artifact.task_card import NO_CLASS
from digit_core.artifact.versions import check_writable
from digit_core.feedback.records import WHOLE, Agreement, Record
from digit_serving.commands import NONE, format_table, format_time
from digit_serving.errors import DigitServingError

_PARTS = {False: "train", True: "held-out"}
"""Names of the folders, by `held_out`."""
_LINES = "lines"
"""Name of the folder of numbers, beside those."""
_NO_FOLDER = re.compile(r"""^[ .]|[/\\:*?"<>|%\x00-\x1f]|[ .]$""")
"""Characters of labels that names of folders can't have everywhere, and their escape."""

_NO_CLASS = "(none)"

_RECORD_HEADINGS = (
    *("SENT", "REQUEST", "PICTURE", "MODEL", "VERSION", "PREDICTED", "CONFIDENCE", "LABEL", "CALLER"),
)
_VERSION_HEADINGS = ("MODEL", "VERSION", "CALLER", "PICTURES", "LABELLED", "AGREEING")


def format_records(records: Iterable[Record]) -> str:
    """Return a table with a line for each record."""
    rows = [
        (
            format_time(record.sent_at),
            record.request_id,
            _format_place(record),
            record.model,
            str(record.version),
            _format_label(record.predicted),
            f"{record.confidence:.1%}",
            _format_label(record.label if record.hand_label is None else record.hand_label),
            record.caller or NONE,
        )
        for record in records
    ]
    return format_table(_RECORD_HEADINGS, rows, numbers={"PICTURE", "VERSION", "CONFIDENCE"})


def format_stats(stats: Iterable[Agreement]) -> str:
    """Return a table with a line for each version and caller, and the share of labels that agree."""
    rows = [
        (
            version.model,
            str(version.version),
            version.caller or NONE,
            f"{version.pictures:,}",
            f"{version.labelled:,}",
            f"{version.agreeing:,} ({version.agreeing / version.labelled:.1%})" if version.labelled else NONE,
        )
        for version in stats
    ]
    return format_table(_VERSION_HEADINGS, rows, numbers={*_VERSION_HEADINGS} - {"MODEL", "CALLER"})


def write_folders(voted: Iterable[tuple[Record, str]], folder: Path) -> dict[str, Counter[str]]:
    """Write what each label is about as PNG into `train` or `held-out`, in a folder of the label.

    Whole readings are in `lines`, each beside a text file of its number. Pictures of no class are left out.
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
        for record, label in voted:
            if label == NO_CLASS:
                continue
            part = _LINES if record.position == WHOLE else _PARTS[bool(record.held_out)]
            parent = unfinished / part if part == _LINES else unfinished / part / folder_name(label)
            parent.mkdir(parents=True, exist_ok=True)
            target = parent / f"{record.digest[:16]}.png"
            target.write_bytes(_to_file(record))
            if part == _LINES:
                target.with_suffix(".gt.txt").write_text(f"{label}\n")
            counts.setdefault(part, Counter())["numbers" if part == _LINES else label] += 1
        if not any(counts.values()):
            raise DigitServingError("no picture has a label of a class")
        unfinished.rename(folder)
    return counts


def folder_name(label: str) -> str:
    """Return the label as the name of a folder: n/a becomes n%2Fa."""
    return _NO_FOLDER.sub(lambda found: f"%{ord(found[0]):02X}", label)


def _format_place(record: Record) -> str:
    """Return the index of the picture, and the digit's position in its reading, or all, after a dot."""
    position = "all" if record.position == WHOLE else record.position
    return f"{record.index}.{position}" if position else str(record.index)


def _format_label(label: str | None) -> str:
    return {None: NONE, NO_CLASS: _NO_CLASS}.get(label) or str(label)


def _to_file(record: Record) -> bytes:
    """Return the PNG file of what the label is about."""
    if record.box is None:
        return record.picture
    left, top, width, height = record.box
    file = io.BytesIO()
    with Image.open(io.BytesIO(record.picture)) as image:
        image.crop((left, top, left + width, top + height)).save(file, "PNG")
    return file.getvalue()
