"""Tables of feedback and of kept answers, which the newest migration creates."""

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from digit_serving.feedback.records import Source

VERSION_TABLE = "feedback_schema"
"""Table of Alembic's revision: other programs' migrations may be in the same database."""

metadata = sa.MetaData()


class _UtcDateTime(sa.TypeDecorator[datetime]):
    """Times with a time zone, of which SQLite has none: stored and returned in UTC."""

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


def _record_table(name: str) -> sa.Table:
    """Return a table with a column for each field of Record, in the same order."""
    return sa.Table(
        name,
        metadata,
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("index", sa.Integer, primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("predicted", sa.Text, nullable=False),
        sa.Column("confidence", sa.Double, nullable=False),
        sa.Column("is_digit", sa.Double),
        sa.Column("input", sa.LargeBinary, nullable=False),
        sa.Column("answered_at", _UtcDateTime, nullable=False),
        sa.Column("held_out", sa.Boolean, nullable=False),
        sa.Column("label", sa.Text),
        sa.Column("labelled_at", _UtcDateTime),
        sa.Column("source", sa.Text),
        sa.Column("original", sa.LargeBinary),
        sa.Index(f"{name}_answered_at", "answered_at"),
    )


feedback = _record_table("feedback")
kept = _record_table("kept")


def criteria(
    table: sa.Table,
    *,
    since: datetime | None = None,
    before: datetime | None = None,
    request_id: str | None = None,
    model: str | None = None,
    labelled: bool | None = None,
    source: Source | None = None,
) -> list[sa.ColumnElement[bool]]:
    """Return the conditions that are given; `since` is included and `before` is not."""
    columns = table.c
    given = []
    if since is not None:
        given.append(columns.answered_at >= since)
    if before is not None:
        given.append(columns.answered_at < before)
    if request_id is not None:
        given.append(columns.request_id == request_id)
    if model is not None:
        given.append(columns.model == model)
    if labelled is not None:
        given.append(columns.label.is_not(None) if labelled else columns.label.is_(None))
    if source is not None:
        given.append(columns.source == source)
    return given
