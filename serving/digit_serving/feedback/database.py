"""Database of records: connection, schema and writing, alike for SQLite and PostgreSQL."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict, Unpack

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from digit_client.artifact.feedback_table import StoreError, metadata, sqlite_file, without_password
from digit_serving.feedback.records import Record

VERSION_TABLE = "feedback_schema"
"""Table of Alembic's revision: other programs' migrations may be in the same database."""

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
_MIGRATION_LOCK = 0x6469676974
"""Key of PostgreSQL's advisory lock that lets one process at a time upgrade the schema."""
_alembic = threading.Lock()
"""Lock of a migration, whose connection Alembic keeps in a global variable."""
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
    """Pool of connections to a database with the newest schema.

    Gateways, which write, create and upgrade the schema, and so does a deletion. Commands that read do not:
    a look at a store must not change it under a gateway of another release.

    Use it in the process that opened it: connections do not survive a fork. Threads may share it.
    """

    def __init__(self, url: sa.URL, *, durable: bool = True, migrate: bool = True) -> None:
        """Open the database. Raise StoreError.

        If `migrate` is true, create or upgrade the schema, else raise StoreError unless it is the newest. If
        `durable` is false, SQLite does not wait for the disk: a crash of the machine, not of the process,
        loses the latest transactions.
        """
        self._url = url
        self._file = file = sqlite_file(url)
        self._is_sqlite = file is not None
        # Built once: building takes longer than writing a row.
        self._upserts = {table: _upsert(table, self._is_sqlite) for table in metadata.sorted_tables}
        with self._translated_errors():
            if file:
                # Readable by its owner only. An existing file must not be opened: closing it would drop the
                # locks that SQLite holds for this process.
                file.touch(mode=0o600)
            self._fingerprint = _fingerprint(file)
            self._engine = _create_engine(url, durable)
            try:
                with self._engine.begin() as connection:
                    self._ensure_schema(connection, migrate)
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
            yield connection

    def upsert(self, table: sa.Table, records: Sequence[Record]) -> None:
        """Insert the records, or replace rows of the same key whose label is not newer. Raise StoreError."""
        if not records:
            return
        # PostgreSQL locks row by row: the same order everywhere excludes deadlocks.
        rows = sorted(map(vars, records), key=lambda row: [row[column] for column in _KEY])
        with self.transaction() as connection:
            connection.execute(self._upserts[table], rows)

    def fetch(self, query: "sa.Select[Any]") -> list[Record]:
        """Return the records of a query for all columns of a table. Raise StoreError."""
        with self.transaction() as connection:
            return [Record(**row) for row in connection.execute(query).mappings()]

    def delete_rows(self, table: sa.Table, *conditions: sa.ColumnElement[bool]) -> int:
        """Delete the rows that meet all conditions and return their number.

        Raise StoreError, and ValueError without a condition.
        """
        if not conditions:
            raise ValueError("a deletion needs a condition")
        with self.transaction() as connection:
            return connection.execute(sa.delete(table).where(*conditions)).rowcount

    def vacuum(self, table: sa.Table) -> None:
        """Write the table anew from its rows, so that no byte of a deleted one remains. Raise StoreError.

        Writers wait meanwhile. PostgreSQL needs the owner of the table, keeps deleted rows in the file as
        long as an older transaction may read them, and copies of them in its write-ahead log.
        """
        self.check_file()
        with (
            self._translated_errors(),
            self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        ):
            if not self._is_sqlite:
                connection.execute(sa.text(f"VACUUM FULL {table.name}"))
                return
            connection.execute(sa.text("VACUUM"))
            self._truncate_wal(connection)

    def close(self) -> None:
        """Close all connections."""
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

    def _lock_schema(self, connection: sa.Connection) -> None:
        if self._is_sqlite:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))

    def _ensure_schema(self, connection: sa.Connection, migrate: bool) -> None:
        config = Config(attributes={"connection": connection})
        config.set_main_option("path_separator", "os")
        config.set_main_option("script_location", "digit_serving.feedback:migrations")
        script = ScriptDirectory.from_config(config)
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        # Without the lock first: a process that writes for long must not delay others that open the store.
        if self._is_newest(context, script):
            return
        if not migrate:
            raise StoreError(
                f"{without_password(self._url)} has no feedback yet, or the schema of an earlier release; "
                "a gateway of this release creates or upgrades it with the first answer"
            )
        self._lock_schema(connection)
        if not self._is_newest(context, script):
            with _alembic:
                command.upgrade(config, "head")

    def _is_newest(self, context: MigrationContext, script: ScriptDirectory) -> bool:
        """True if the schema is the newest. Raise StoreError for an unknown one, of a newer release."""
        current, newest = context.get_current_revision(), script.get_current_head()
        if current and current not in {known.revision for known in script.walk_revisions()}:
            raise StoreError(
                f"{without_password(self._url)} has schema {current}, which is newer than {newest}, "
                "the newest that this digit-serving knows; upgrade digit-serving"
            )
        return current == newest

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


def _create_engine(url: sa.URL, durable: bool) -> sa.Engine:
    """Return an engine whose errors do not quote parameters: inputs must not get into logs."""
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(url, connect_args=_LIBPQ_OPTIONS, hide_parameters=True, pool_pre_ping=True)
    engine = sa.create_engine(url, connect_args={"timeout": _BUSY_SECONDS}, hide_parameters=True)

    @sa.event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: Any) -> None:
        _use_wal(connection)
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
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
