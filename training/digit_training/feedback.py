"""Feedback reader: the labelled pictures in a gateway's store as examples of a task. Needs SQLAlchemy."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from digit_core import images
from digit_core.artifact.task_card import NO_CLASS, TaskCard
from digit_core.errors import ImageError, NoInkError
from digit_core.feedback.votes import count_votes
from digit_training.data import Examples, Labels
from digit_training.errors import DataError
from digit_training.evaluation import Accuracy

_CONNECT_SECONDS = 10
_LABELLED = sa.text(
    "SELECT digest, caller, picture, CAST(box AS TEXT) AS box, held_out, label, hand_label, predicted "
    "FROM feedback_picture WHERE model = :model AND coalesce(hand_label, label) IS NOT NULL "
    "AND position >= 0 AND caller NOT IN :without_callers ORDER BY sent_at, digest, caller"
).bindparams(sa.bindparam("without_callers", expanding=True, type_=sa.Text))
"""Rows with a label but whole readings, of position -1; oldest first: the same rows give the same fit."""


@dataclass(frozen=True)
class Feedback:
    """Labelled pictures of a task, as its card prepares them: some train a model, the others test it.

    Images are uint8 [n, *shape]. A label is the index of a class, or of a negative the number of classes.
    """

    task: TaskCard
    source: str
    """URL of the store, without a password."""
    train: Examples
    held_out: Examples
    agreement: Accuracy
    """Accuracy of the served answers to the pictures, as their labels have it."""
    agreements: dict[str, Accuracy]
    """The same of the votes of a caller, by the name of the API key."""
    conflicts: int
    """Number of pictures left out, on whose label callers don't agree."""
    unusable: int
    """Number of pictures left out, which the card can't prepare, or whose label it has not."""

    def __len__(self) -> int:
        return len(self.train) + len(self.held_out)

    def without_negatives(self) -> "Feedback":
        """Leave out the pictures that show none of the classes, for a network that cannot answer so."""
        negative = len(self.task.labels)
        train, held_out = (part[part.labels != negative] for part in (self.train, self.held_out))
        return replace(self, train=train, held_out=held_out)

    def without_tested(self, tested: NDArray[np.uint8]) -> "Feedback":
        """Leave out of training the pictures in `tested` [n, *shape]: a test digit may be sent, too."""
        known = {image.tobytes() for image in tested}
        is_new = np.array([image.tobytes() not in known for image in self.train.images], bool)
        return replace(self, train=self.train[is_new])

    def describe(self, weight: int, right: NDArray[np.bool_]) -> dict[str, Any]:
        """Return origin, numbers and accuracy as JSON values for the model card.

        Each training picture counts `weight` times; `right` tells the held-out ones that the model answers
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
    """Return the labelled pictures of the model of the task's name, each once, as its card prepares them.

    `count_votes` decides on the label. `url` is `sqlite:///FILE` or `postgresql://…`; the records of
    `without_callers`, names of API keys, are left out. Raise DataError, whose message lacks the password, if
    the pictures cannot be read.
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
    held_out = {row.digest for row in rows if row.held_out}
    pictures = {row.digest: row for row in rows}
    index_of = {label: index for index, label in enumerate((*task.labels, NO_CLASS))}
    parts: dict[bool, list[tuple[NDArray[np.uint8], int]]] = {False: [], True: []}
    unusable = 0
    for digest, row in pictures.items():
        if (label := votes.labels.get(digest)) is None:
            continue
        try:
            parts[digest in held_out].append((_prepare(row, task), index_of[label]))
        except (ImageError, NoInkError, KeyError):
            unusable += 1
    train, tested = (_to_examples(parts[side], task) for side in (False, True))
    callers = sorted({row.caller for row in rows if row.label is not None})
    return Feedback(
        task,
        source,
        train,
        tested,
        _agreement([(label, pictures[digest].predicted) for digest, label in votes.labels.items()]),
        {
            caller: _agreement(
                [(row.label, row.predicted) for row in rows if row.caller == caller and row.label is not None]
            )
            for caller in callers
        },
        votes.conflicts,
        unusable,
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
    """Return the rows with a label. Raise DataError if there is no table."""
    options = {} if url.get_backend_name() == "sqlite" else {"connect_timeout": _CONNECT_SECONDS}
    engine = sa.create_engine(url, connect_args=options, poolclass=sa.NullPool, hide_parameters=True)
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("feedback_picture"):
            source = url.set(query={}).render_as_string()
            raise DataError(
                f"{source} has no table of pictures; a gateway of this release makes it at its start"
            )
        return connection.execute(_LABELLED, {"model": model, "without_callers": without_callers}).all()


def _agreement(pairs: Sequence[tuple[str, str]]) -> Accuracy:
    return Accuracy(sum(label == predicted for label, predicted in pairs), len(pairs))


def _prepare(row: sa.Row[Any], task: TaskCard) -> NDArray[np.uint8]:
    """Return a stored picture as serving prepares it. Raise ImageError or NoInkError."""
    box = json.loads(row.box) if row.box else None
    return images.prepare(images.decode(row.picture), task, box)


def _to_examples(pairs: Sequence[tuple[NDArray[np.uint8], int]], task: TaskCard) -> Examples:
    pixels = np.array([image for image, _ in pairs], np.uint8).reshape(-1, *task.shape)
    return Examples(pixels, np.array([label for _, label in pairs], np.intp))
