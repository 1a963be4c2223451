"""Labelled inputs as pictures in folders, which Keras and `digits export --data` read."""

import io
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from digit_client import ImageError, images
from digit_serving.feedback.records import Record

PARTS = {False: "train", True: "held-out"}
"""Names of the folders, by `held_out`."""


class ExportError(Exception):
    """Records do not fit into files; the message is one sentence for the user."""


def write_folders(records: Iterable[Record], folder: Path) -> dict[str, Counter[str]]:
    """Write each picture as PNG into `train` or `held-out`, in a folder of its label.

    A picture is the original of a record that has one, else the input. Records without a class are left out.
    Return the number of pictures by label, of each part. Raise ExportError or OSError.
    """
    counts: dict[str, Counter[str]] = {part: Counter() for part in PARTS.values()}
    with _written_beside(folder) as unfinished:
        for record in records:
            if not record.label:
                continue
            # Labels are words of the model's author; no word may lead out of the folder.
            if record.label.startswith(".") or Path(record.label).name != record.label:
                raise ExportError(f"the label {record.label!r} cannot name a folder")
            part = PARTS[record.held_out]
            target = unfinished / part / record.label / f"{_name(record)}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(_picture(record))
            counts[part][record.label] += 1
        if not any(counts.values()):
            raise ExportError("no answer has a label of a class")
    return counts


def side_by_side(records: Iterable[Record]) -> Image.Image:
    """Return the inputs in one row. Raise ExportError if they have several shapes."""
    inputs = [np.asarray(Image.open(io.BytesIO(record.input))) for record in records]
    if len({pixels.shape for pixels in inputs}) > 1:
        raise ExportError("the inputs have several shapes; they are of different models or tasks")
    return Image.fromarray(np.hstack(inputs))


@contextmanager
def _written_beside(target: Path) -> Iterator[Path]:
    """Yield a path beside the target, and rename it to the target at the end: a failure leaves nothing.

    Raise ExportError if the target exists.
    """
    if target.exists():
        raise ExportError(f"{target} exists")
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
        unfinished = Path(folder) / target.name
        yield unfinished
        unfinished.rename(target)


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
