"""Labelled pictures of any task: a folder per class, a CSV file, an `.npz` file or IDX files.

Each picture is prepared as in serving: `images.prepare(images.decode_for_task(data, task), task)`.
"""

import csv
import hashlib
import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from digit_core import images
from digit_core.artifact.task_card import DIGITS, CardInput, TaskCard, TaskCardError
from digit_core.errors import ImageError
from digit_training import cards
from digit_training.data import (
    Dataset,
    Examples,
    Labels,
    RawArray,
    check_counts,
    check_labels,
    has_idx_files,
    open_npz,
    read_idx_pair,
    validate,
)
from digit_training.errors import CardError, DataError

TESTED_PART = 6
"""One of so many of the user's own digits tests the model; of MNIST's digits, one of seven does."""

_NPZ_KEYS = (("x_test", "y_test"), ("images", "labels"))


@dataclass(frozen=True)
class LabelledPictures:
    """Prepared pictures of known labels: images uint8 [n, *shape], n at least 1."""

    examples: Examples
    description: dict[str, Any]
    """Origin and sizes as JSON values for the model card."""
    names: Sequence[str]
    """Name of each picture: its path within the folder, or its index."""
    unreadable: Sequence[str] = ()
    """Names of the files that are left out because they cannot be decoded, each with the reason."""
    refused: Sequence[str] = ()
    """Names of the pictures that are left out because serving refuses them, such as a blank picture for a
    card of the kind `digits`, each with the reason."""
    task: TaskCard = DIGITS
    path: Path | None = None
    """Folder or file of the pictures, if they have one."""
    reload: Callable[[TaskCard], "LabelledPictures"] | None = None
    """Function that prepares the same pictures by another card; None for prepared ones."""

    @classmethod
    def of(
        cls, examples: Examples, task: TaskCard = DIGITS, description: dict[str, Any] | None = None
    ) -> "LabelledPictures":
        """Return examples that are prepared already, named by their index."""
        return cls(examples, description or {}, [f"index {row}" for row in range(len(examples))], task=task)

    def __len__(self) -> int:
        return len(self.examples)

    def prepared_for(self, task: TaskCard) -> "LabelledPictures":
        """Return the same pictures as a card of the same labels and kind prepares them. Raise DataError."""
        is_same = task.prepares_as(replace(self.task, input=CardInput(self.task.shape, task.range)))
        return self if self.reload is None or is_same else self.reload(task)


class _Picture(NamedTuple):
    name: str
    label: int | list[int]
    """Index of the label, or in a multi-label task 0 or 1 for each label."""
    source: Path | NDArray[Any]
    """File, or pixels of any size."""


def load(path: Path, task: TaskCard) -> LabelledPictures:
    """Return the pictures at `path`, prepared; unreadable and refused ones are left out and named.

    A folder has a folder per label, or the IDX files t10k-images and t10k-labels. An `.npz` file has
    `x_test` and `y_test`, or `images` and `labels`: names, or indices from 0. Of a multi-label task they are
    0 or 1, [n, k], as in a CSV file with a column of files and one for each label. Raise DataError if there
    is no such data, if its labels are not those of the card, or if every picture, or every one of a label, is
    left out.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist")
    loaded = _prepare(_read(path, task), task, path)
    if task.is_multi_label or has_label_folders(path):
        labels = loaded.examples.labels
        tested = (
            labels.any(axis=0) if task.is_multi_label else np.bincount(labels, minlength=len(task.labels))
        )
        # A label without a picture is a mistake, which the accuracy would hide.
        if untested := [label for label, count in zip(task.labels, tested, strict=True) if not count]:
            raise DataError(f"{path} holds no picture of the label {untested[0]!r} that can be evaluated")
    return loaded


def prepare_folder(folder: Path, card: Path) -> tuple[NDArray[np.uint8], Labels]:
    """Return the pictures in a folder of a folder for each label, exactly as the service prepares them.

    `card` is the TOML file of a task card that states `shape`. The pictures are uint8 [n, *shape], 0 to 255,
    and the indices of their labels integer [n]. Raise CardError or DataError.
    """
    document = cards.read(card)
    pixels = {"range": [0, 255]} | document.get("input", {})
    wanted = {key: document[key] for key in ("name", "labels", "prepare") if key in document}
    try:
        task = TaskCard.from_document(wanted | {"input": pixels})
    except TaskCardError as error:
        raise CardError(f"{card}: {error}") from error
    examples = load(folder, task).examples
    return examples.images, examples.labels


def load_digits(folder: Path) -> tuple[Dataset, LabelledPictures]:
    """Return the digits in a folder of a folder for each of 0 to 9 as training and test set, and as loaded.

    The test set is a sixth of the digits, chosen at random and always the same. Raise DataError like `load`.
    """
    loaded = load(folder, DIGITS)
    order = np.random.default_rng(0).permutation(len(loaded))
    count = math.ceil(len(loaded) / TESTED_PART)
    train, test = loaded.examples[order[count:]], loaded.examples[order[:count]]
    arrays = (train.images, train.labels, test.images, test.labels)
    return validate([RawArray(str(folder), array) for array in arrays], str(folder)), loaded


def has_label_folders(path: Path) -> bool:
    """True for a folder of folders, without IDX files."""
    return path.is_dir() and not has_idx_files(path) and bool(_subfolders(path))


def _read(path: Path, task: TaskCard) -> list[_Picture]:
    if path.suffix == ".csv" or (path.is_dir() and task.is_multi_label):
        return _read_csv(path, task)
    if has_idx_files(path):
        return _from_arrays(*read_idx_pair(path, "t10k"), task)
    return _read_folder(path, task) if path.is_dir() else _read_npz(path, task)


def _read_folder(folder: Path, task: TaskCard) -> list[_Picture]:
    found, labels = _subfolders(folder), [unicodedata.normalize("NFC", label) for label in task.labels]
    wanted = set(labels)
    if missing := sorted(wanted - set(found)):
        raise DataError(f"{folder} has no folder {missing[0]!r}; it needs one for each label of the card")
    if unknown := sorted(set(found) - wanted):
        raise DataError(f"{folder} has the folder {unknown[0]!r}, which is no label of the card")
    return [
        _Picture(f"{label}/{path.relative_to(found[label])}", index, path)
        for index, label in enumerate(labels)
        for path in sorted(found[label].rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    ]


def _subfolders(folder: Path) -> dict[str, Path]:
    """Return the folders by name; macOS decomposes the accents of a name."""
    return {
        unicodedata.normalize("NFC", path.name): path
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith(".")
    }


def _read_csv(path: Path, task: TaskCard) -> list[_Picture]:
    if not task.is_multi_label or path.is_dir():
        wanted = "a CSV file or an .npz file" if task.is_multi_label else "a folder for each label"
        raise DataError(f"{path} does not suit the card, whose test pictures are {wanted}")
    with path.open(newline="", encoding="utf-8-sig") as file:
        header, *rows = [*csv.reader(file)] or [[]]
    if sorted(header[1:]) != sorted(task.labels):
        raise DataError(f"{path} has the columns {', '.join(header)}, not file, {', '.join(task.labels)}")
    columns = [header.index(label, 1) for label in task.labels]
    for number, row in enumerate(rows, 2):
        if len(row) != len(header) or not set(row[1:]) <= {"0", "1"}:
            raise DataError(f"{path}, line {number}: a file and then 0 or 1 for each label are needed")
    return [_Picture(row[0], [int(row[column]) for column in columns], path.parent / row[0]) for row in rows]


def _read_npz(path: Path, task: TaskCard) -> list[_Picture]:
    with open_npz(path) as arrays:
        for keys in _NPZ_KEYS:
            if set(keys) <= set(arrays):
                pixels, labels = (RawArray(f"{path}: {key}", arrays[key]) for key in keys)
                return _from_arrays(pixels, labels, task)
    raise DataError(f"{path} has neither x_test and y_test nor images and labels")


def _from_arrays(pixels: RawArray, labels: RawArray, task: TaskCard) -> list[_Picture]:
    if pixels.values.ndim not in (3, 4):
        raise DataError(
            f"{pixels.name} has shape {list(pixels.values.shape)}, not [n, height, width] "
            "or [n, height, width, channels]"
        )
    indices = _label_indices(labels, task)
    check_counts(pixels, labels)
    return [
        _Picture(f"index {index}", label, image)
        for index, (image, label) in enumerate(zip(pixels.values, indices.tolist(), strict=True))
    ]


def _label_indices(labels: RawArray, task: TaskCard) -> Labels:
    """Return the index of each label, given as names or as indices; of a multi-label task its rows [n, k]."""
    values, count = labels.values, len(task.labels)
    if task.is_multi_label:
        if values.shape[1:] != (count,) or not np.isin(values, (0, 1)).all():
            raise DataError(f"{labels.name} is not 0 or 1 in the shape [n, {count}]")
        return values.astype(np.intp)
    if values.shape[1:] == (1,):
        values = values[:, 0]
    if values.dtype.kind == "U":
        if unknown := sorted(set(values.tolist()) - set(task.labels)):
            raise DataError(f"{labels.name} has the label {unknown[0]!r}, which is not on the card")
        index_of = {label: index for index, label in enumerate(task.labels)}
        values = np.array([index_of[name] for name in values.tolist()])
    return check_labels(RawArray(labels.name, values), count).astype(np.intp)


def _prepare(pictures: Sequence[_Picture], task: TaskCard, path: Path) -> LabelledPictures:
    # The array is preallocated: a list of arrays and their stack would be two copies in memory.
    prepared = np.empty((len(pictures), *task.shape), np.uint8)
    accepted: list[_Picture] = []
    unreadable: list[str] = []
    refused: list[str] = []
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(f"{picture.name} {picture.label}\n".encode())
        left_out = unreadable
        try:
            if isinstance(picture.source, Path):
                data = picture.source.read_bytes()
                digest.update(data)
                pixels = images.decode_for_task(data, task)
            else:
                pixels = picture.source
                digest.update(pixels.tobytes())
            left_out = refused
            prepared[len(accepted)] = images.prepare(pixels, task)
            accepted.append(picture)
        except (ImageError, images.NoInkError, OSError) as error:
            left_out.append(f"{picture.name}: {error}")
    if not accepted:
        reasons = [*unreadable, *refused]
        reason = f"; the first: {reasons[0]}" if reasons else ""
        raise DataError(f"{path} holds no picture that can be evaluated{reason}")
    description = {
        "source": str(path),
        "test": len(accepted),
        "unreadable": len(unreadable),
        "refused": len(refused),
        "test_checksum": digest.hexdigest(),
    }
    examples = Examples(prepared[: len(accepted)], np.array([picture.label for picture in accepted], np.intp))
    names = [picture.name for picture in accepted]
    return LabelledPictures(
        examples, description, names, unreadable, refused, task, path, partial(load, path)
    )
