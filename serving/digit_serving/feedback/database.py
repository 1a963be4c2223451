"""Database of records: connection, schema and writing, alike for SQLite and PostgreSQL."""

import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict, Unpack

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from digit_core.artifact.feedback_table import (
    StoreError,
    feedback,
    is_held_out,
    kept,
    metadata,
    secret,
    sqlite_file,
    without_password,
)
from digit_serving.feedback.records import Record

VERSION_TABLE = "feedback_schema"
"""Table of the schema's revision, in Alembic's form: a release that changes the schema can go on with it."""
_REVISION, _WITHOUT_SECRET = "0002", "0001"
_revision = sa.Table(
    VERSION_TABLE,
    sa.MetaData(),
    sa.Column("version_num", sa.String(32)),
    sa.PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
)

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
_SCHEMA_LOCK = 0x6469676974
"""Key of PostgreSQL's advisory lock that lets one process at a time create the schema."""
_KEY = ("request_id", "index", "position", "caller")


class Criteria(TypedDict, total=False):
    """Criteria of records, all of which must be met; None admits every record."""

    since: datetime | None
    """Earliest time of the answer."""
    before: datetime | None
    """End of the times of the answer, itself excluded."""
    request_id: str | None
    model: str | None
    labelled: bool | None


class Database:
    """Tables of records in a database with the schema of this release: a pool of connections.

    Gateways, which write, create the schema, and so does a deletion. Commands that read do not: a look at a
    store must not change it.

    Use it in the process that opened it: connections do not survive a fork. Threads may share it.
    """

    def __init__(self, url: sa.URL, *, create: bool = True) -> None:
        """Open the database. Without a schema, create it if `create` is true. Raise StoreError."""
        self._url = url
        self._file = file = sqlite_file(url)
        self._is_sqlite = file is not None
        self._is_closed = False
        # Built once: building takes longer than writing a row.
        self._upserts = {table: _upsert(table, self._is_sqlite) for table in (feedback, kept)}
        with self._translated_errors():
            if file:
                # Readable by its owner only. An existing file must not be opened: closing it would drop the
                # locks that SQLite holds for this process.
                file.touch(mode=0o600)
            self._fingerprint = _fingerprint(file)
            self._engine = _create_engine(url)
            try:
                with self._engine.begin() as connection:
                    self._ensure_schema(connection, create)
                    self._key = connection.scalar(sa.select(secret.c.key)) if create else None
            except BaseException:
                self.close()
                raise

    def check_file(self) -> None:
        """Raise StoreError if an SQLite file was removed or replaced, so that nobody can open it any more.

        Close the database then: SQLite opens a new file only after all connections to the old one are closed.
        """
        if _fingerprint(self._file) != self._fingerprint:
            raise StoreError(f"{self._file} was removed or replaced")

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Yield a connection in a transaction, which is committed at the end. Raise StoreError."""
        self.check_file()
        with self._translated_errors(), self._engine.begin() as connection:
            try:
                yield connection
            finally:
                if self._is_closed:
                    # Another thread has disposed of the pool, which would never close this connection.
                    connection.detach()

    def save(self, records: Sequence[Record], table: sa.Table = feedback) -> None:
        """Insert the records into a table in one transaction, which is on disk at the return.

        A record replaces the stored one of the same request, index, position and caller, unless the label of
        that is newer. Raise StoreError.
        """
        if not records:
            return
        # PostgreSQL locks row by row: the same order everywhere excludes deadlocks.
        rows = sorted(map(self._to_row, records), key=lambda row: [row[column] for column in _KEY])
        with self.transaction() as connection:
            connection.execute(self._upserts[table], rows)

    def _to_row(self, record: Record) -> dict[str, Any]:
        if record.held_out is not None:
            return vars(record)
        assert self._key, "only a store that may be created takes records"
        return vars(record) | {"held_out": is_held_out(self._key, record.digest)}

    def fetch(self, query: "sa.Select[Any]") -> list[Record]:
        """Return the records of a query for all columns of a table. Raise StoreError."""
        with self.transaction() as connection:
            return [Record(**row) for row in connection.execute(query).mappings()]

    def delete(self, **given: Unpack[Criteria]) -> int:
        """Delete the records that meet all criteria, kept ones too, and return the number of the others.

        The tables are written anew, so that no byte of them remains; backups and replicas are not reached.
        With PostgreSQL the write-ahead log and its archives keep copies until they are recycled. Raise
        ValueError without a criterion, and StoreError if a reader delays the removal of the bytes.
        """
        # Kept answers first: feedback on one of them would write it into the store again.
        self.delete_rows(kept, *criteria(kept, **given))
        count = self.delete_rows(feedback, *criteria(feedback, **given))
        # Also after no deletion: an earlier one may have been interrupted before its end.
        self._vacuum()
        return count

    def delete_rows(self, table: sa.Table, *conditions: sa.ColumnElement[bool]) -> int:
        """Delete the rows that meet all conditions and return their number; their bytes may remain.

        Raise StoreError, and ValueError without a condition.
        """
        if not conditions:
            raise ValueError("a deletion needs a condition")
        with self.transaction() as connection:
            return connection.execute(sa.delete(table).where(*conditions)).rowcount

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
            if not self._is_sqlite:
                connection.execute(sa.text("VACUUM FULL feedback"))
                connection.execute(sa.text("VACUUM FULL kept"))
                return
            connection.execute(sa.text("VACUUM"))
            self._truncate_wal(connection)

    def close(self) -> None:
        """Close all connections; those in use close after their transaction."""
        self._is_closed = True
        self._engine.dispose()

    def _truncate_wal(self, connection: sa.Connection) -> None:
        """Move all pages from the WAL to the file: until then both contain deleted rows."""
        end = time.monotonic() + _BUSY_SECONDS
        # The busy timeout does not apply while another process moves pages.
        while connection.execute(sa.text("PRAGMA wal_checkpoint(TRUNCATE)")).scalar():
            if time.monotonic() > end:
                raise StoreError(
                    f"the rows are deleted, but {self._url.database} may still contain them, because another "
                    "process is reading it; repeat the deletion"
                )
            time.sleep(_RETRY_SECONDS)

    def _ensure_schema(self, connection: sa.Connection, create: bool) -> None:
        # Without the lock first: a process that writes for long must not delay others that open the store.
        current = self._current_revision(connection)
        if current == _REVISION or (current and not create):
            return
        if not create:
            raise StoreError(
                f"{without_password(self._url)} has no feedback yet; a gateway creates the tables with the "
                "first answer"
            )
        if self._is_sqlite:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
        current = self._current_revision(connection)
        if current == _REVISION:
            return
        metadata.create_all(connection, tables=[secret] if current else None, checkfirst=False)
        if not self._is_sqlite and not current:
            # No write-ahead log of the kept answers; the table is empty after a crash.
            connection.execute(sa.text("ALTER TABLE kept SET UNLOGGED"))
        connection.execute(secret.insert().values(key=secrets.token_hex()))
        _revision.create(connection, checkfirst=True)
        connection.execute(_revision.delete())
        connection.execute(_revision.insert().values(version_num=_REVISION))

    def _current_revision(self, connection: sa.Connection) -> str | None:
        """Return the schema's revision, None for a new database. Raise StoreError for a newer release's."""
        if not sa.inspect(connection).has_table(VERSION_TABLE):
            return None
        current: str = connection.scalar(sa.select(_revision.c.version_num)) or ""
        if current not in (_REVISION, _WITHOUT_SECRET):
            raise StoreError(
                f"{without_password(self._url)} has schema {current}, which is newer than {_REVISION}, "
                "the newest that this installation knows; upgrade digits"
            )
        return current

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.SQLAlchemyError, OSError) as error:
            cause = error.orig if isinstance(error, sa.exc.StatementError) else error
            sentence, *_ = str(cause).splitlines()
            raise StoreError(f"{without_password(self._url)}: {sentence}") from error


def criteria(table: sa.Table, **given: Unpack[Criteria]) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of the criteria that are given, and not None."""
    columns = table.c
    conditions: dict[str, Callable[[Any], sa.ColumnElement[bool]]] = {
        "since": lambda time: columns.answered_at >= time,
        "before": lambda time: columns.answered_at < time,
        "request_id": lambda name: columns.request_id == name,
        "model": lambda name: columns.model == name,
        "labelled": lambda is_labelled: columns.label.is_not(None) == is_labelled,
    }
    return [conditions[name](value) for name, value in given.items() if value is not None]


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
