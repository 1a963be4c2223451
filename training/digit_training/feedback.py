"""Feedback reader: the labelled answers in a gateway's store as examples of the digits.

The table `feedback` is a contract between the rooms: `digit_serving.feedback.tables` defines it, and training
imports nothing of serving. A test writes with serving's store and reads with this module.
"""

import io
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from digit_client import DIGITS
from digit_training.data import NO_DIGIT, Examples, Labels
from digit_training.errors import DataError

if TYPE_CHECKING:
    import sqlalchemy as sa

_NO_CLASS = ""
"""Label of an input that shows no digit."""
_COLUMNS = ("label", "input", "held_out", "request_id")
_OLDEST_FIRST = ("answered_at", "request_id", "index", "position")
_CONNECT_SECONDS = 10
_URL_FORMS = "the URL of a store is sqlite:///FILE or postgresql://USER@HOST/DATABASE"


@dataclass(frozen=True)
class Feedback:
    """Labelled answers of the model `digits`: some train a model, the others test it.

    Images are uint8 [n, 28, 28], labels 0..9 or NO_DIGIT.
    """

    source: str
    """URL of the store, without a password."""
    train: Examples
    held_out: Examples

    def __len__(self) -> int:
        return len(self.train) + len(self.held_out)

    def without_negatives(self) -> "Feedback":
        """Leave out the inputs that show no digit, for a network that cannot answer so."""
        train, held_out = (part[part.labels != NO_DIGIT] for part in (self.train, self.held_out))
        return replace(self, train=train, held_out=held_out)

    def without_tested(self, tested: NDArray[np.uint8]) -> "Feedback":
        """Leave out of training the inputs that are among the held-out ones, or in `tested` [n, 28, 28].

        The same picture may be sent twice, and a test digit may be sent as feedback.
        """
        known = {image.tobytes() for images in (self.held_out.images, tested) for image in images}
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
            "train": {"inputs": len(self.train), "by_label": _count_labels(self.train.labels)},
            "held_out": {
                "inputs": len(held_out),
                "right": int(right.sum()),
                "by_label": _count_labels(held_out.labels),
                "right_by_label": _count_labels(held_out.labels[right]),
            },
        }


def load(url: str) -> Feedback:
    """Return the labelled answers of the model `digits` in `sqlite:///FILE` or `postgresql://…`.

    Raise DataError, whose message has no password, if they cannot be read or are none of digits.
    """
    try:
        import sqlalchemy as sa
    except ImportError as error:
        raise DataError("--feedback needs SQLAlchemy: pip install '.[training,feedback]'") from error
    parsed = _parse(url)
    source = parsed.set(query={}).render_as_string()
    try:
        rows = _select(parsed)
    except sa.exc.NoSuchTableError as error:
        raise DataError(
            f"{source} has no table of feedback; gateways with DIGITS_FEEDBACK create it"
        ) from error
    except (sa.exc.SQLAlchemyError, ImportError) as error:
        cause = error.orig if isinstance(error, sa.exc.StatementError) else error
        sentence = str(cause).partition("\n")[0]
        raise DataError(f"{source}: {sentence}") from error
    parts = [[row for row in rows if row.held_out == is_held_out] for is_held_out in (False, True)]
    train, held_out = (_to_examples(part, source) for part in parts)
    return Feedback(source, train, held_out)


def _parse(url: str) -> "sa.URL":
    import sqlalchemy as sa

    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        # Without the URL, which may contain a password.
        raise DataError(f"{_URL_FORMS}; this one cannot be parsed") from None
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite" or parsed.database in (None, "", ":memory:"):
        raise DataError(f"{_URL_FORMS}, not {parsed.set(query={}).render_as_string()}")
    # SQLite would create a file of a mistyped name.
    if not Path(parsed.database).is_file():
        raise DataError(f"{parsed.database} does not exist")
    return parsed


def _select(url: "sa.URL") -> "list[sa.Row[Any]]":
    """Return the rows with a label, oldest first, so that the same rows give the same fit."""
    import sqlalchemy as sa

    is_sqlite = url.get_backend_name() == "sqlite"
    options = {} if is_sqlite else {"connect_timeout": _CONNECT_SECONDS}
    engine = sa.create_engine(url, connect_args=options, poolclass=sa.NullPool, hide_parameters=True)
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("feedback"):
            raise sa.exc.NoSuchTableError("feedback")
        names = {*_COLUMNS, *_OLDEST_FIRST, "model"}
        table = sa.table("feedback", *(sa.column(name) for name in names))
        columns = table.c
        query = (
            sa.select(*(columns[name] for name in _COLUMNS))
            .where(columns.model == DIGITS.name, columns.label.is_not(None))
            .order_by(*(columns[name] for name in _OLDEST_FIRST))
        )
        return list(connection.execute(query))


def _to_examples(rows: "list[sa.Row[Any]]", source: str) -> Examples:
    images, labels = [], []
    for row in rows:
        try:
            images.append(_decode(row.input))
            labels.append(_label_index(row.label))
        except DataError as error:
            raise DataError(
                f"request {row.request_id} in {source} {error}; "
                "remove it with digits feedback delete --request"
            ) from error
    return Examples(np.array(images, np.uint8).reshape(-1, *DIGITS.shape), np.array(labels, np.uint8))


def _count_labels(labels: Labels) -> dict[str, int]:
    names = ["no digit" if label == NO_DIGIT else DIGITS.labels[label] for label in labels.tolist()]
    return dict(sorted(Counter(names).items()))


def _decode(png: bytes) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"has an input that is no PNG file of a digit: {error}") from error
    if pixels.shape != DIGITS.shape or pixels.dtype != np.uint8:
        raise DataError(f"has an input of shape {list(pixels.shape)}, not {list(DIGITS.shape)}")
    return pixels


def _label_index(label: str) -> int:
    if label == _NO_CLASS:
        return NO_DIGIT
    if label not in DIGITS.labels:
        raise DataError(f"has the label {label!r}, which is no digit")
    return DIGITS.labels.index(label)
