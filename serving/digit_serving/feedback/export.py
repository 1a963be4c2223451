"""Labelled inputs as files that `digits train --data` and `digits export --data` take."""

import io
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from digit_client import DIGITS
from digit_client.images import Pixels
from digit_serving.feedback.records import Record

_NO_LABELS = "no answer has a label of a class"


class ExportError(Exception):
    """Records do not fit into files; the message is one sentence for the user."""


def write_folder(records: Iterable[Record], folder: Path) -> Counter[str]:
    """Write each input as PNG into a folder of its label, and return the number of inputs by label.

    Records without a class are left out. Raise ExportError or OSError.
    """
    counts: Counter[str] = Counter()
    with _written_beside(folder) as unfinished:
        for record in records:
            if not record.label:
                continue
            # Labels are words of the model's author; no word may lead out of the folder.
            if record.label.startswith(".") or Path(record.label).name != record.label:
                raise ExportError(f"the label {record.label!r} cannot name a folder; write an .npz file")
            target = unfinished / record.label / f"{_name(record)}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(record.input)
            counts[record.label] += 1
        if not counts:
            raise ExportError(_NO_LABELS)
    return counts


def write_npz(records: Iterable[Record], file: Path) -> Counter[str]:
    """Write `x_train`, `y_train`, `x_test` and `y_test`, and return the number of inputs by label.

    The test set are the records that are held out. Labels are uint8 if the inputs are those of the
    digits' model, else names. Records without a class are left out. Raise ExportError or OSError.
    """
    labelled = [record for record in records if record.label]
    if not labelled:
        raise ExportError(_NO_LABELS)
    counts = Counter(str(record.label) for record in labelled)
    held_out = np.array([record.held_out for record in labelled], bool)
    x = np.stack(_read_inputs(labelled))
    is_digits = x.shape[1:] == DIGITS.shape and counts.keys() <= set(DIGITS.labels)
    y: NDArray[Any] = np.array([record.label for record in labelled], np.str_)
    y = y.astype(np.uint8) if is_digits else y
    with _written_beside(file) as unfinished:
        np.savez_compressed(
            unfinished, x_train=x[~held_out], y_train=y[~held_out], x_test=x[held_out], y_test=y[held_out]
        )
    return counts


def side_by_side(records: Iterable[Record]) -> Image.Image:
    """Return the inputs in one row. Raise ExportError."""
    return Image.fromarray(np.hstack(_read_inputs(records)))


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


def _read_inputs(records: Iterable[Record]) -> list[Pixels]:
    """Return inputs of one shape: uint8 grey [h, w] or RGB [h, w, 3]. Raise ExportError."""
    inputs = []
    for record in records:
        with Image.open(io.BytesIO(record.input)) as image:
            inputs.append(np.asarray(image, np.uint8))
    if len({pixels.shape for pixels in inputs}) > 1:
        raise ExportError("the inputs have several shapes; they are of different models or tasks")
    return inputs


def _name(record: Record) -> str:
    # A request ID may contain colons, which are not allowed in file names everywhere.
    name = f"{record.request_id.replace(':', '=')}-{record.index}-{record.position}"
    # Callers choose request IDs: two may have the same.
    return f"{record.caller}@{name}" if record.caller else name
