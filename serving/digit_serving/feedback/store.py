"""Feedback store: answers with labels, those that wait for one by hand, and those that may get feedback.

Alike for SQLite and PostgreSQL.
"""

import dataclasses
import random
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypedDict, Unpack

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from digit_core.votes import Votes, count_votes
from digit_serving.errors import StoreError
from digit_serving.feedback.records import Agreement, Record
from digit_serving.feedback.table import (
    feedback,
    is_held_out,
    kept,
    metadata,
    parse_url,
    secret,
    sqlite_file,
    without_password,
)

VERSION_TABLE = "feedback_schema"
"""Table of the schema's revision, in Alembic's form."""
_REVISION = "0001"
"""Revision that all releases of a minor version have: they refuse another one.

Their migrations are additive, new tables and new columns with a default or without a value, and leave it, so
that after a rollback the earlier release goes on to write what it knows.
"""
_UNRELEASED_REVISION = "0002"
"""Revision of builds between 0.1.0 and the next release, with the same tables."""
_revision = sa.Table(
    VERSION_TABLE,
    sa.MetaData(),
    sa.Column("version_num", sa.String(32)),
    sa.PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
)
_SCHEMA_LOCK = 0x6469676974
"""Key of PostgreSQL's advisory lock that lets one process at a time create the schema."""
_BUSY_SECONDS = 30
"""Longest wait for another process that writes into the same SQLite file."""
_RETRY_SECONDS = 0.02
_LIBPQ_OPTIONS = {
    "connect_timeout": 10,
    # A server that vanishes without closing its connections is noticed within half a minute, not hours.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_PAGE_ROWS = 100

_KEY = ("request_id", "index", "position", "caller")
_columns = feedback.c
_key = tuple(_columns[name] for name in _KEY)
_without_original = [column for column in _columns if column.name not in ("digest", "original")]
_with_original = [*_without_original, _columns.original]
_OLDEST_FIRST = (_columns.answered_at, *_key)
_LEAST_CONFIDENT_FIRST = (_columns.confidence, *_key)
_copy = feedback.alias()
_copy_order = sa.tuple_(*(_copy.c[column.name] for column in _LEAST_CONFIDENT_FIRST))
_is_first_copy = ~sa.exists().where(
    _copy.c.digest == _columns.digest,
    _copy.c.model == _columns.model,
    _copy.c.label.is_not(None) | (_copy_order < sa.tuple_(*_LEAST_CONFIDENT_FIRST)),
)
"""Condition: of the records with the same input, none has a label, and none is less confident."""


class Criteria(TypedDict, total=False):
    """Criteria of records, all of which must be met; None admits every record."""

    since: datetime | None
    """Earliest time of the answer."""
    before: datetime | None
    """End of the times of the answer, itself excluded."""
    request_id: str | None
    caller: str | None
    model: str | None
    labelled: bool | None


class FeedbackStore:
    """Records in `sqlite:///FILE`, or for several gateways in `postgresql://USER@HOST/DATABASE`.

    Gateways, which write, create the tables, and so does a deletion. Commands that read do not: a look at a
    store must not change it. Every method raises StoreError if the database fails.

    Open the store in the process that uses it, after a fork; threads may share it.
    """

    def __init__(self, url: str, *, create: bool = True) -> None:
        """Open the store. Raise StoreError, also for one without tables unless `create` is true."""
        self._url = parse_url(url)
        self._file = file = sqlite_file(self._url)
        self._is_closed = False
        # Built once: building takes longer than writing a row.
        self._upserts = {table: _upsert(table, file is not None) for table in (feedback, kept)}
        with self._translated_errors():
            if file:
                # Readable by its owner only. An existing file must not be opened: closing it would drop the
                # locks that SQLite holds for this process.
                file.touch(mode=0o600)
            self._fingerprint = _fingerprint(file)
            self._engine = _create_engine(self._url)
            try:
                with self._engine.begin() as connection:
                    self._ensure_schema(connection, create)
                    self._key = connection.scalar(sa.select(secret.c.key)) if create else None
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Close all connections; those in use close after their transaction."""
        self._is_closed = True
        self._engine.dispose()

    def check_file(self) -> None:
        """Raise StoreError if an SQLite file was removed or replaced, so that nobody can open it any more.

        Close the store then: SQLite opens a new file only after all connections to the old one are closed.
        """
        if _fingerprint(self._file) != self._fingerprint:
            raise StoreError(f"{self._file} was removed or replaced")

    def save(self, records: Sequence[Record], table: sa.Table = feedback) -> None:
        """Insert the records into a table in one transaction, which is on disk at the return.

        A record replaces the stored one of the same request, index, position and caller, unless the label of
        that is newer.
        """
        if not records:
            return
        # PostgreSQL locks row by row: the same order everywhere excludes deadlocks.
        rows = sorted(map(self._to_row, records), key=lambda row: [row[column] for column in _KEY])
        with self._transaction() as connection:
            connection.execute(self._upserts[table], rows)

    def records(self, *, originals: bool = False, **given: Unpack[Criteria]) -> Iterator[Record]:
        """Yield the records that meet all criteria, oldest first.

        Their `original` is None unless `originals` is true: pictures as sent may be large.

        Keyset pagination: no transaction stays open between pages, which would delay a deletion.
        """
        columns = _with_original if originals else _without_original
        query = sa.select(*columns).where(*_criteria(feedback, **given))
        query = query.order_by(*_OLDEST_FIRST).limit(_PAGE_ROWS)
        page = self._fetch(query)
        while page:
            yield from page
            last = (page[-1].answered_at, *_key_of(page[-1]))
            page = self._fetch(query.where(sa.tuple_(*_OLDEST_FIRST) > last))

    def votes(self, *, without_callers: Sequence[str] = (), **given: Unpack[Criteria]) -> Votes:
        """Return the label of each input that meets all criteria; its rows have no pictures."""
        labelled = (_columns.label.is_not(None), _columns.caller.not_in(without_callers))
        names = ("model", "version", "predicted", "label", "source", "labelled_at", "digest", "held_out")
        columns = [*_key, *(_columns[name] for name in names)]
        query = sa.select(*columns).where(*_criteria(feedback, **given), *labelled).order_by(*_OLDEST_FIRST)
        with self._transaction() as connection:
            return count_votes(connection.execute(query).all())

    def decided_records(self, votes: Votes, *, originals: bool = False) -> Iterator[Record]:
        """Yield the record of each decided input, held out or not as the votes have it."""
        held_out = {tuple(row[: len(_key)]): is_held_out for row, is_held_out in votes.decided}
        query = sa.select(*(_with_original if originals else _without_original))
        keys = [*held_out]
        for start in range(0, len(keys), _PAGE_ROWS):
            page = keys[start : start + _PAGE_ROWS]
            for record in self._fetch(query.where(sa.tuple_(*_key).in_(page))):
                yield dataclasses.replace(record, held_out=held_out[_key_of(record)])

    def count(self, **given: Unpack[Criteria]) -> int:
        """Return the number of records that meet all criteria."""
        return self._count(*_criteria(feedback, **given))

    def stats(self) -> list[Agreement]:
        """Return the counts of each version and caller, by model and version."""
        group = (_columns.model, _columns.version, _columns.caller)
        query = sa.select(*group, sa.func.count()).group_by(*group).order_by(*group)
        with self._transaction() as connection:
            counts = connection.execute(query).all()
        labelled, agreeing = Counter[tuple[str, int, str]](), Counter[tuple[str, int, str]]()
        for model in {row.model for row in counts}:
            for rows in self.votes(model=model).by_caller.values():
                for row in rows:
                    labelled[row.model, row.version, row.caller] += 1
                    agreeing[row.model, row.version, row.caller] += row.label == row.predicted
        return [
            Agreement(m, v, c, records, labelled[m, v, c], agreeing[m, v, c]) for m, v, c, records in counts
        ]

    def unlabelled(self, model: str, *, limit: int, pool: int) -> list[Record]:
        """Return at most `limit` records of the model that wait for a label, without `original`.

        They are chosen at random among the `pool` least confident ones. Of records with the same input, the
        least confident one waits, unless one has a label.
        """
        conditions = [*_criteria(feedback, model=model, labelled=False), _is_first_copy]
        # Without inputs, which may be large: only those of the chosen records are read.
        query = sa.select(*_key).where(*conditions).order_by(*_LEAST_CONFIDENT_FIRST).limit(pool)
        with self._transaction() as connection:
            found = connection.execute(query).all()
        chosen = random.sample(list(map(tuple, found)), min(limit, len(found)))
        records = self._fetch(sa.select(*_without_original).where(sa.tuple_(*_key).in_(chosen)))
        random.shuffle(records)
        return records

    def count_unlabelled(self, model: str) -> int:
        """Return how many inputs of the model wait for a label, each counted once."""
        return self._count(*_criteria(feedback, model=model, labelled=False), _is_first_copy)

    def label(self, model: str, digest: str, label: str | None) -> bool:
        """Give an input a label by hand, or with None withdraw it; the label of its own caller stays.

        Return False if no record of the input waits for a label, or has one by hand.
        """
        change = (
            sa.update(feedback)
            .where(
                _columns.model == model,
                _columns.digest == digest,
                _columns.label.is_(None) | (_columns.source == "label"),
            )
            .values(label=label, labelled_at=datetime.now(UTC), source="sample" if label is None else "label")
        )
        with self._transaction() as connection:
            return connection.execute(change).rowcount > 0

    def keep(self, records: Sequence[Record]) -> None:
        """Keep answers that may get feedback, beside the stored ones."""
        self.save(records, kept)

    def find_kept(self, request_id: str, index: int, caller: str) -> list[Record]:
        """Return the records of one picture of a caller's request, by position.

        None if the request is unknown, expired, or another caller's. If the caller reused the request ID,
        only the latest answer is returned.
        """
        conditions = [kept.c.request_id == request_id, kept.c.index == index, kept.c.caller == caller]
        found = self._fetch(sa.select(kept).where(*conditions).order_by(kept.c.position))
        latest = max((record.answered_at for record in found), default=None)
        return [record for record in found if record.answered_at == latest]

    def expire(self, seconds: float, max_rows: int) -> int:
        """Delete kept answers older than `seconds`, and the oldest beyond `max_rows`; return their number."""
        answered_at = kept.c.answered_at
        query = sa.select(answered_at).order_by(answered_at.desc()).offset(max_rows).limit(1)
        with self._transaction() as connection:
            newest_excess = connection.scalar(query)
        cutoff = datetime.now(UTC) - timedelta(seconds=seconds)
        return self._delete_rows(kept, answered_at <= max(cutoff, newest_excess or cutoff))

    def delete(self, **given: Unpack[Criteria]) -> int:
        """Delete the records that meet all criteria, kept ones too, and return the number of the others.

        The tables are written anew, so that no byte of them remains; backups and replicas are not reached.
        With PostgreSQL the write-ahead log and its archives keep copies until they are recycled. Raise
        ValueError without a criterion, and StoreError if a reader delays the removal of the bytes.
        """
        # Kept answers first: feedback on one of them would write it into the store again.
        self._delete_rows(kept, *_criteria(kept, **given))
        count = self._delete_rows(feedback, *_criteria(feedback, **given))
        # Also after no deletion: an earlier one may have been interrupted before its end.
        self._vacuum()
        return count

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        """Yield a connection in a transaction, which is committed at the end. Raise StoreError."""
        self.check_file()
        with self._translated_errors(), self._engine.begin() as connection:
            try:
                yield connection
            finally:
                if self._is_closed:
                    # Another thread has disposed of the pool, which would never close this connection.
                    connection.detach()

    def _fetch(self, query: "sa.Select[Any]") -> list[Record]:
        with self._transaction() as connection:
            return [Record(**row) for row in connection.execute(query).mappings()]

    def _count(self, *conditions: sa.ColumnElement[bool]) -> int:
        with self._transaction() as connection:
            query = sa.select(sa.func.count()).select_from(feedback).where(*conditions)
            return connection.execute(query).scalar_one()

    def _delete_rows(self, table: sa.Table, *conditions: sa.ColumnElement[bool]) -> int:
        if not conditions:
            raise ValueError("a deletion needs a condition")
        with self._transaction() as connection:
            return connection.execute(sa.delete(table).where(*conditions)).rowcount

    def _to_row(self, record: Record) -> dict[str, Any]:
        if record.held_out is not None:
            return vars(record)
        assert self._key, "only a store that may be created takes records"
        return vars(record) | {"held_out": is_held_out(self._key, record.digest)}

    def _vacuum(self) -> None:
        """Write the tables anew from their rows. Writers wait meanwhile.

        PostgreSQL needs the owner of the tables, and keeps deleted rows in the file as long as an older
        transaction may read them.
        """
        self.check_file()
        with (
            self._translated_errors(),
            self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        ):
            if not self._file:
                connection.execute(sa.text("VACUUM FULL feedback"))
                connection.execute(sa.text("VACUUM FULL kept"))
                return
            connection.execute(sa.text("VACUUM"))
            # Until its pages are in the file, the write-ahead log has deleted rows. The busy timeout does not
            # apply while another process moves pages.
            end = time.monotonic() + _BUSY_SECONDS
            while connection.execute(sa.text("PRAGMA wal_checkpoint(TRUNCATE)")).scalar():
                if time.monotonic() > end:
                    raise StoreError(
                        f"the rows are deleted, but {self._file} may still contain them, because another "
                        "process is reading it; repeat the deletion"
                    )
                time.sleep(_RETRY_SECONDS)

    def _ensure_schema(self, connection: sa.Connection, create: bool) -> None:
        # Without the lock first: a process that writes for long must not delay others that open the store.
        current, missing = self._read_schema(connection)
        if not create and not current:
            raise StoreError(
                f"{without_password(self._url)} has no feedback yet; a gateway creates the tables with the "
                "first answer"
            )
        if not create or (current == _REVISION and not missing):
            return
        if self._file:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
        current, missing = self._read_schema(connection)
        metadata.create_all(connection, tables=missing, checkfirst=False)
        if kept in missing and not self._file:
            # No write-ahead log of the kept answers; the table is empty after a crash.
            connection.execute(sa.text("ALTER TABLE kept SET UNLOGGED"))
        if secret in missing:
            connection.execute(secret.insert().values(key=secrets.token_hex()))
        if current != _REVISION:
            _revision.create(connection, checkfirst=True)
            connection.execute(_revision.delete())
            connection.execute(_revision.insert().values(version_num=_REVISION))

    def _read_schema(self, connection: sa.Connection) -> tuple[str | None, list[sa.Table]]:
        """Return the schema's revision, None for a new database, and the tables that are missing.

        Raise StoreError for the revision of another minor version.
        """
        names = sa.inspect(connection).get_table_names()
        if VERSION_TABLE not in names:
            return None, metadata.sorted_tables
        missing = [table for table in metadata.sorted_tables if table.name not in names]
        current: str = connection.scalar(sa.select(_revision.c.version_num)) or ""
        if current not in (_REVISION, _UNRELEASED_REVISION):
            raise StoreError(
                f"{without_password(self._url)} has schema {current}, and this installation knows "
                f"{_REVISION} alone: another minor version of digits changed it; use that"
            )
        return current, missing

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.SQLAlchemyError, OSError) as error:
            cause = error.orig if isinstance(error, sa.exc.StatementError) else error
            sentence, *_ = str(cause).splitlines()
            raise StoreError(f"{without_password(self._url)}: {sentence}") from error


def _criteria(table: sa.Table, **given: Unpack[Criteria]) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of the criteria that are given, and not None."""
    columns = table.c
    conditions: dict[str, Callable[[Any], sa.ColumnElement[bool]]] = {
        "since": lambda time: columns.answered_at >= time,
        "before": lambda time: columns.answered_at < time,
        "request_id": lambda name: columns.request_id == name,
        "caller": lambda name: columns.caller == name,
        "model": lambda name: columns.model == name,
        "labelled": lambda is_labelled: columns.label.is_not(None) == is_labelled,
    }
    return [conditions[name](value) for name, value in given.items() if value is not None]


def _key_of(record: Record) -> tuple[Any, ...]:
    return record.request_id, record.index, record.position, record.caller


def _fingerprint(file: Path | None) -> tuple[int, int] | None:
    """Return the device and inode of an existing file."""
    with suppress(OSError):
        if file:
            status = file.stat()
            return status.st_dev, status.st_ino
    return None


def _upsert(table: sa.Table, is_sqlite: bool) -> sa.Insert:
    insert = sqlite_insert(table) if is_sqlite else postgresql_insert(table)
    return insert.on_conflict_do_update(
        index_elements=_KEY,
        set_={column.name: insert.excluded[column.name] for column in table.c},
        # A label must not be lost to an unlabelled sample that is written later.
        where=table.c.labelled_at.is_(None) | (insert.excluded.labelled_at >= table.c.labelled_at),
    )


def _create_engine(url: sa.URL) -> sa.Engine:
    """Return an engine whose errors do not quote parameters: inputs must not get into logs."""
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(url, connect_args=_LIBPQ_OPTIONS, hide_parameters=True, pool_pre_ping=True)
    engine = sa.create_engine(url, connect_args={"timeout": _BUSY_SECONDS}, hide_parameters=True)

    @sa.event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: Any) -> None:
        _use_wal(connection)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
        # VACUUM would write its copy of the inputs into the system's folder for temporary files.
        connection.execute("PRAGMA temp_store = MEMORY")

    return engine


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch the file to a write-ahead log, which it remains."""
    end = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            # The busy timeout does not apply to the lock that the switch needs.
            is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() > end:
                raise
            time.sleep(_RETRY_SECONDS)
