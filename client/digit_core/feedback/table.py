"""Table of feedback: schema and URL of a gateway's store. Needs the extra feedback."""

import hmac
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from digit_core.feedback.votes import HELD_OUT_PART

_URL_FORMS = "the URL of a store is sqlite:///FILE or postgresql://USER@HOST/DATABASE"


class StoreError(Exception):
    """A store of feedback can't be opened, read or written; the message is one sentence for a terminal."""


class NoRoomError(StoreError):
    """The disk of the store is full, or that of an SQLite file almost."""


class UtcDateTime(sa.TypeDecorator[datetime]):
    """Time with a time zone, stored and returned in UTC: SQLite has no time zones."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError(f"a record's time needs a time zone, not {value!r}")
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = sa.MetaData()
pictures = sa.Table(
    "feedback_picture",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("caller", sa.Text, primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("predicted", sa.Text, nullable=False),
    sa.Column("confidence", sa.Double, nullable=False),
    sa.Column("request_id", sa.Text, nullable=False, index=True),
    sa.Column("index", sa.Integer, nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("sent_at", UtcDateTime, nullable=False, index=True),
    sa.Column("held_out", sa.Boolean, nullable=False),
    sa.Column("label", sa.Text),
    sa.Column("hand_label", sa.Text),
    sa.Column("box", sa.JSON(none_as_null=True)),
    sa.Column("reading", sa.JSON(none_as_null=True)),
    sa.Column("size", sa.BigInteger, nullable=False),
    # Keep this column last: SQLite reads the others without it.
    sa.Column("picture", sa.LargeBinary, nullable=False),
    # The sum of a caller's sizes is read from this index alone.
    sa.Index("feedback_picture_size", "caller", "size"),
)
"""Pictures with a label, and those that wait for one; `Record` explains the columns."""
revision = sa.Table("feedback_schema", metadata, sa.Column("version_num", sa.String(32), primary_key=True))
REVISION = "1"
"""Revision of this schema, the only one that is read. A release that only adds tables or
optional columns keeps it, so that the earlier release can still write after a rollback."""
secret = sa.Table("feedback_secret", metadata, sa.Column("key", sa.Text, primary_key=True))
"""Key of this store, which decides what is held out: callers can't know it."""


def is_held_out(key: str, digest: str) -> bool:
    """True for a fifth of all pictures, which test a model and never train it.

    A keyed hash of the picture decides: callers can't learn the side from request IDs or other pictures.
    """
    return int.from_bytes(hmac.digest(key.encode(), digest.encode(), "sha256")[:8]) % HELD_OUT_PART == 0


def parse_url(url: str) -> sa.URL:
    """Return the URL of an SQLite file, with its absolute path without links, or of a PostgreSQL database.

    Raise StoreError for another one.
    """
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        # Leave out the URL, which may contain a password.
        raise StoreError(f"{_URL_FORMS}; this one cannot be parsed") from None
    backend = parsed.get_backend_name()
    if backend == "sqlite" and parsed.database not in (None, "", ":memory:"):
        return parsed.set(database=str(Path(parsed.database).resolve()))
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    raise StoreError(f"{_URL_FORMS}, not {without_password(parsed)}")


def sqlite_file(url: sa.URL) -> Path | None:
    """Return the path of an SQLite file, None for PostgreSQL."""
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


def without_password(url: sa.URL) -> str:
    """Return the URL for messages, without passwords; the query may have one, too."""
    return url.set(query={}).render_as_string()
