"""Feedback reader: the labelled answers in a gateway's store as examples of a task. Needs SQLAlchemy."""

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from PIL import Image

from digit_core.artifact.task_card import NO_CLASS, TaskCard
from digit_core.votes import count_votes
from digit_training.data import Examples, Labels
from digit_training.errors import DataError
from digit_training.evaluation import Accuracy

_CONNECT_SECONDS = 10
_LABELLED = sa.text(
    "SELECT request_id, caller, input, digest, held_out, label, labelled_at, source, predicted FROM feedback "
    "WHERE model = :model AND label IS NOT NULL AND caller NOT IN :without_callers "
    'ORDER BY answered_at, request_id, "index", position, caller'
).bindparams(sa.bindparam("without_callers", expanding=True, type_=sa.Text))
"""Rows with a label, oldest first, so that the same rows give the same fit."""


@dataclass(frozen=True)
class Feedback:
    """Labelled answers of a task's model: some train a model, the others test it.

    Images are uint8 [n, *shape]. A label is the index of a class, or of a negative the number of classes.
    """

    task: TaskCard
    source: str
    """URL of the store, without a password."""
    train: Examples
    held_out: Examples
    agreement: Accuracy
    """Accuracy of the served answers to the inputs, as their labels have it."""
    agreements: dict[str, Accuracy]
    """The same of the inputs that a caller labelled, by the name of the API key."""
    conflicts: int
    """Number of inputs left out, which callers labelled differently."""

    def __len__(self) -> int:
        return len(self.train) + len(self.held_out)

    def without_negatives(self) -> "Feedback":
        """Leave out the inputs that show none of the classes, for a network that cannot answer so."""
        negative = len(self.task.labels)
        train, held_out = (part[part.labels != negative] for part in (self.train, self.held_out))
        return replace(self, train=train, held_out=held_out)

    def without_tested(self, tested: NDArray[np.uint8]) -> "Feedback":
        """Leave out of training the inputs in `tested` [n, *shape]: a test digit may be sent as feedback."""
        known = {image.tobytes() for image in tested}
        is_new = np.array([image.tobytes() not in known for image in self.train.images], bool)
        return replace(self, train=self.train[is_new])

    def describe(self, weight: int, right: NDArray[np.bool_]) -> dict[str, Any]:
        """Return origin, numbers and accuracy as JSON values for the model card.

        Each training input counts `weight` times; `right` tells the held-out inputs that the model answers
        correctly: [n].
        """
        held_out = self.held_out
        return {
            "source": self.source,
            "weight": weight,
            "agreeing": self.agreement.correct,
            "conflicting": self.conflicts,
            "train": {"inputs": len(self.train), "by_label": self._count(self.train.labels)},
            "held_out": {
                "inputs": len(held_out),
                "right": int(right.sum()),
                "by_label": self._count(held_out.labels),
                "right_by_label": self._count(held_out.labels[right]),
            },
        }

    def _count(self, labels: Labels) -> dict[str, int]:
        names = [*self.task.labels, "no digit"]
        return dict(sorted(Counter(names[label] for label in labels.tolist()).items()))


def load(url: str, task: TaskCard, without_callers: Sequence[str] = ()) -> Feedback:
    """Return the labelled answers of the model of the task's name, each input once.

    Each caller has one vote an input, and a label by hand has precedence; inputs whose votes differ are left
    out. `url` is `sqlite:///FILE` or `postgresql://…`; the records of `without_callers`, names of API keys,
    are left out. Raise DataError, whose message lacks the password, if the answers cannot be read or are of
    another task.
    """
    parsed = _parse(url)
    # The query may have a password too.
    source = parsed.set(query={}).render_as_string()
    try:
        rows = _select(parsed, task.name, without_callers)
    except (sa.exc.SQLAlchemyError, ImportError) as error:
        cause = error.orig if isinstance(error, sa.exc.StatementError) else error
        sentence = str(cause).partition("\n")[0]
        raise DataError(f"{source}: {sentence}") from error
    votes = count_votes(rows)
    parts = ([row for row, is_held_out in votes.decided if is_held_out is side] for side in (False, True))
    train, held_out = (_to_examples(part, task, source) for part in parts)
    return Feedback(
        task,
        source,
        train,
        held_out,
        _agreement([row for row, _ in votes.decided]),
        {caller: _agreement(votes.by_caller[caller]) for caller in sorted(votes.by_caller)},
        votes.conflicts,
    )


def _parse(url: str) -> sa.URL:
    """Return the URL of an SQLite file, which exists, by its absolute path, or of a database server."""
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        # Without the URL, which may contain a password.
        raise DataError("the URL of the feedback cannot be parsed") from None
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite":
        file = Path(parsed.database or "").resolve()
        # SQLite would create a file of a mistyped name.
        if not file.is_file():
            raise DataError(f"{file} does not exist")
        return parsed.set(database=str(file))
    return parsed


def _select(url: sa.URL, model: str, without_callers: Sequence[str]) -> Sequence[sa.Row[Any]]:
    """Return the rows with a label."""
    options = {} if url.get_backend_name() == "sqlite" else {"connect_timeout": _CONNECT_SECONDS}
    engine = sa.create_engine(url, connect_args=options, poolclass=sa.NullPool, hide_parameters=True)
    with engine.connect() as connection:
        return connection.execute(_LABELLED, {"model": model, "without_callers": without_callers}).all()


def _agreement(rows: Sequence[sa.Row[Any]]) -> Accuracy:
    return Accuracy(sum(row.label == row.predicted for row in rows), len(rows))


def _to_examples(rows: Sequence[sa.Row[Any]], task: TaskCard, source: str) -> Examples:
    index_of = {label: index for index, label in enumerate((*task.labels, NO_CLASS))}
    images = []
    for row in rows:
        try:
            images.append(_decode(row.input, task))
            if row.label not in index_of:
                raise DataError(f"has the label {row.label!r}, which is none of {task.name}")
        except DataError as error:
            raise DataError(
                f"request {row.request_id} in {source} {error}; remove it with digits feedback delete"
            ) from error
    labels = np.array([index_of[row.label] for row in rows], np.intp)
    return Examples(np.array(images, np.uint8).reshape(-1, *task.shape), labels)


def _decode(png: bytes, task: TaskCard) -> NDArray[np.uint8]:
    """Return a stored input in the task's shape, without an axis for the only channel of grey."""
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"has an input that is no PNG file: {error}") from error
    expected = task.shape[:2] if task.color == "grey" else task.shape
    if pixels.shape != expected or pixels.dtype != np.uint8:
        raise DataError(f"has an input of shape {list(pixels.shape)}, not {list(expected)}")
    return pixels
