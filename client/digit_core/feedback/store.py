"""Feedback store: pictures with labels, and those that wait for one, in SQLite or PostgreSQL."""

import random
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict, Unpack

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from digit_core.errors import mebibytes
from digit_core.feedback.records import WHOLE, Agreement, Record
from digit_core.feedback.table import (
    REVISION,
    NoRoomError,
    StoreError,
    is_held_out,
    metadata,
    parse_url,
    pictures,
    revision,
    secret,
    sqlite_file,
    without_password,
)
from digit_core.feedback.votes import Votes, count_votes

_SCHEMA_LOCK = 0x6469676974
"""Key of PostgreSQL's advisory lock that lets one process at a time create the schema."""
_BUSY_SECONDS = 30
"""Longest wait for another process that writes into the same SQLite file."""
_LIBPQ_OPTIONS = {
    "connect_timeout": 10,
    # A server that vanishes without closing its connections is noticed within half a minute, not hours.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_PAGE_ROWS = 100
_ROW_BYTES = 1024
"""Bytes that a record counts for beside its picture: its other columns and its places in the indexes."""

_PROBE_BYTES = 64 * 1024
"""Picture of a probe's row: a small row fits into the last page of a table that can't grow."""
_ROOM_BYTES = 8 * 2**20
"""Least free space on the disk of an SQLite file: a deletion needs some of it for the journal."""

_FULL = {"53100", "SQLITE_FULL"}
"""Codes of a full disk: PostgreSQL's SQLSTATE, and SQLite's error."""

_columns = pictures.c
_KEY = ("model", "digest", "caller")
_PICTURE = ("model", "caller", "request_id", "index", "sent_at")
"""Columns that a reading and its digits share; callers may use a request ID again."""
_of_record = [column for column in _columns if column.name not in ("digest", "size")]
_OLDEST_FIRST = tuple(_columns[name] for name in ("sent_at", "request_id", "index", "position", *_KEY))
_label = sa.func.coalesce(_columns.hand_label, _columns.label)


class Criteria(TypedDict, total=False):
    """Criteria of records, all of which must be met; None admits every record."""

    since: datetime | None
    """Earliest time at which the picture was sent."""
    before: datetime | None
    """Time before which the picture was sent."""
    request_id: str | None
    index: int | None
    caller: str | None
    model: str | None
    digest: str | None
    sent_at: datetime | None
    label: str | None
    labelled: bool | None
    is_whole: bool | None


class FeedbackStore:
    """Store of records in `sqlite:///FILE`, or for several gateways in `postgresql://USER@HOST/DATABASE`.

    Gateways create the tables. Commands do not: a look at a store must not change it. Every method raises
    StoreError if the database fails.

    Each transaction has a connection of its own, so that no open file outlives the removal of an SQLite file,
    and threads may share the store.
    """

    def __init__(self, url: str, *, create: bool = True) -> None:
        """Open the store. Raise StoreError if it has no tables, unless `create` is true."""
        parsed = parse_url(url)
        self.name = without_password(parsed)
        """URL without a password."""
        self._file = sqlite_file(parsed)
        # A mistyped name would become an empty store.
        if self._file and not create and not self._file.exists():
            raise StoreError(f"{self._file} does not exist; check the store's URL")
        # Build the statement once: that takes longer than writing a row.
        self._upsert = _upsert(self._file is not None)
        self._engine = _create_engine(parsed)
        with self._transaction() as connection:
            self._ensure_schema(connection, create)
            self._key = connection.scalar(sa.select(secret.c.key)) or ""

    def save(
        self,
        records: Sequence[Record],
        known: Sequence[Record] = (),
        admit: Callable[[int], None] | None = None,
    ) -> None:
        """Write the records in one transaction, which is on disk at the return.

        A picture that the same caller has sent before takes the new answer, and its new label or, without
        one, the new request ID. Records in `known` are only relabelled; a label of None clears theirs.
        `admit` is called with the bytes that the others add, none if they are stored already; an error of it
        is raised, and nothing written.
        """
        if not records:
            return
        self._check_room()
        given = [(record, False) for record in records] + [(record, True) for record in known]
        rows = [(self._to_row(record), is_known) for record, is_known in given]
        with self._transaction() as connection:
            if admit:
                admit(_added_size(connection, records))
            # PostgreSQL locks row by row: the same order everywhere excludes deadlocks.
            for row, is_known in sorted(rows, key=lambda pair: [pair[0][name] for name in _KEY]):
                same = [_columns[name] == row[name] for name in _KEY]
                relabel = sa.update(pictures).where(*same).values(label=row["label"])
                connection.execute(relabel) if is_known else connection.execute(self._upsert, row)

    def records(self, *, pictures: bool = False, **given: Unpack[Criteria]) -> list[Record]:
        """Return the records that meet all criteria, oldest first; without `pictures` these are empty."""
        columns = _of_record if pictures else [*_of_record[:-1], sa.literal(b"").label("picture")]
        return self._fetch(sa.select(*columns).where(*_criteria(**given)).order_by(*_OLDEST_FIRST))

    def latest(self, **given: Unpack[Criteria]) -> list[Record]:
        """Return the records of the latest picture that meets all criteria: its whole reading, its digits."""
        found = self.records(**given)[-1:]
        if not found:
            return []
        same: Any = {name: getattr(found[0], name) for name in _PICTURE}
        return self.records(pictures=True, **same)

    def votes(self, *, without_callers: Sequence[str] = (), **given: Unpack[Criteria]) -> Votes:
        """Return the label of each picture that meets all criteria."""
        query = sa.select(_columns.digest, _columns.label, _columns.hand_label)
        query = query.where(*_criteria(**given), _columns.caller.not_in(without_callers))
        with self._transaction() as connection:
            return count_votes(connection.execute(query.order_by(*_OLDEST_FIRST)).all())

    def voted(self, model: str, votes: Votes) -> Iterator[tuple[Record, str]]:
        """Yield a record of each picture with a label, and this label."""
        digests = [*votes.labels]
        for start in range(0, len(digests), _PAGE_ROWS):
            for digest, record in self._first_copies(model, digests[start : start + _PAGE_ROWS]).items():
                yield record, votes.labels[digest]

    def count(self, **given: Unpack[Criteria]) -> int:
        """Return the number of records that meet all criteria."""
        with self._transaction() as connection:
            query = sa.select(sa.func.count()).select_from(pictures).where(*_criteria(**given))
            return connection.execute(query).scalar_one()

    def stats(self) -> list[Agreement]:
        """Return the counts of each version and caller, by model and version."""
        group = (_columns.model, _columns.version, _columns.caller)
        agreeing = sa.func.count(sa.case((_label == _columns.predicted, 1)))
        query = sa.select(*group, sa.func.count(), sa.func.count(_label), agreeing)
        with self._transaction() as connection:
            rows = connection.execute(query.group_by(*group).order_by(*group)).all()
        return [Agreement(*row) for row in rows]

    def check(self, *, insert: bool = False) -> None:
        """Raise StoreError if the store can't be written, without a change.

        `insert` also adds a row and takes it back: PostgreSQL refuses nothing else while its disk is full.
        """
        self._check_room()
        with self._transaction() as connection:
            connection.execute(sa.delete(pictures).where(sa.false()))
            if insert:
                row = Record("", secrets.token_bytes(_PROBE_BYTES), None, 0, "", 0.0, "", datetime.now(UTC))
                savepoint = connection.begin_nested()
                connection.execute(sa.insert(pictures), self._to_row(row))
                savepoint.rollback()

    def sizes(self) -> dict[str, int]:
        """Return the bytes that the records of each caller hold."""
        query = sa.select(_columns.caller, sa.func.sum(_columns.size)).group_by(_columns.caller)
        with self._transaction() as connection:
            return {caller: int(size) for caller, size in connection.execute(query)}

    def unlabelled(self, model: str, *, limit: int, pool: int) -> list[Record]:
        """Return at most `limit` pictures of the model that wait for a label, the least confident first.

        They are chosen at random among the `pool` least confident ones, each once. Digits wait with their
        reading.
        """
        query = _waiting(model).order_by(sa.func.min(_columns.confidence), _columns.digest).limit(pool)
        with self._transaction() as connection:
            found: Sequence[Any] = connection.scalars(query).all()
        chosen = sorted(random.sample(range(len(found)), min(limit, len(found))))
        return [*self._first_copies(model, [found[place] for place in chosen]).values()]

    def count_unlabelled(self, model: str) -> int:
        """Return how many pictures of the model wait for a label."""
        with self._transaction() as connection:
            query = sa.select(sa.func.count()).select_from(_waiting(model).subquery())
            return connection.execute(query).scalar_one()

    def label(self, model: str, labels: Mapping[str, str | None]) -> bool:
        """Set the hand label of each digest; None withdraws it. Return False if no picture is stored."""
        with self._transaction() as connection:
            counts = [
                connection.execute(
                    sa.update(pictures)
                    .where(_columns.model == model, _columns.digest == digest)
                    .values(hand_label=label)
                ).rowcount
                for digest, label in sorted(labels.items())
            ]
        return sum(counts) > 0

    def expire(self, days: float) -> int:
        """Delete pictures without a label that were sent more than `days` ago; return their number."""
        return self._delete_rows(before=datetime.now(UTC) - timedelta(days=days), labelled=False)

    def delete(self, **given: Unpack[Criteria]) -> int:
        """Delete the records that meet all criteria, and return their number.

        No byte of them remains: SQLite overwrites them; PostgreSQL rewrites the table, which only its owner
        may do, and keeps copies in its write-ahead log until this is recycled. Backups and replicas are not
        reached. Raise ValueError without a criterion.
        """
        count = self._delete_rows(**given)
        if not self._file:
            # Rewrite it even if nothing was deleted: an earlier deletion may have been interrupted.
            with self._translated_errors(), self._engine.connect() as connection:
                connection.execution_options(isolation_level="AUTOCOMMIT")
                connection.execute(sa.text(f"VACUUM FULL {pictures.name}"))
        return count

    def _check_room(self) -> None:
        """Raise NoRoomError if the disk of an SQLite file is almost full."""
        with self._translated_errors():
            free = shutil.disk_usage(self._file.parent).free if self._file else _ROOM_BYTES
        if free < _ROOM_BYTES:
            raise NoRoomError(
                f"the disk of {self._file} has {mebibytes(free)} free, and pictures are stored while it "
                f"has {_ROOM_BYTES / 2**20:.0f} MiB"
            )

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        """Yield a connection in a transaction, which is committed at the end. Raise StoreError."""
        with self._translated_errors():
            if self._file and not self._file.exists():
                # Only its owner may read the file.
                self._file.touch(mode=0o600)
            with self._engine.begin() as connection:
                yield connection

    def _fetch(self, query: "sa.Select[Any]") -> list[Record]:
        with self._transaction() as connection:
            return [_to_record(row) for row in connection.execute(query).mappings()]

    def _first_copies(self, model: str, digests: Sequence[str]) -> dict[str, Record]:
        """Return one record of each picture, held out if one of its records is."""
        query = sa.select(*_of_record).where(_columns.model == model, _columns.digest.in_(digests))
        # The dictionary keeps the last record of each digest.
        found = self._fetch(query.order_by(_columns.held_out, *_OLDEST_FIRST))
        by_digest = {record.digest: record for record in found}
        return {digest: by_digest[digest] for digest in digests if digest in by_digest}

    def _delete_rows(self, **given: Unpack[Criteria]) -> int:
        conditions = _criteria(**given)
        if not conditions:
            raise ValueError("a deletion needs a condition")
        with self._transaction() as connection:
            return connection.execute(sa.delete(pictures).where(*conditions)).rowcount

    def _to_row(self, record: Record) -> dict[str, Any]:
        held_out = is_held_out(self._key, record.digest) if record.held_out is None else record.held_out
        return vars(record) | {"digest": record.digest, "held_out": held_out, "size": _size(record)}

    def _ensure_schema(self, connection: sa.Connection, create: bool) -> None:
        """Create the tables; raise StoreError unless `create`, and for those of another release."""
        # Look before locking: a process that writes for long must not delay others that open the store.
        if self._has_schema(connection):
            return
        if not create:
            raise StoreError(f"{self.name} has no feedback yet; a gateway creates the tables at its start")
        if self._file:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
        if not self._has_schema(connection):
            metadata.create_all(connection)
            connection.execute(secret.insert().values(key=secrets.token_hex()))
            connection.execute(revision.insert().values(version_num=REVISION))

    def _has_schema(self, connection: sa.Connection) -> bool:
        """Return False for a new database. Raise StoreError for the tables of another release."""
        if not sa.inspect(connection).has_table(revision.name):
            return False
        if (found := connection.scalar(sa.select(revision.c.version_num))) != REVISION:
            raise StoreError(
                f"{self.name} has the schema {found} of another release, and this one reads schema "
                f"{REVISION} only: export its pictures with that release, or name another store"
            )
        return True

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.SQLAlchemyError, OSError) as error:
            cause = error.orig if isinstance(error, sa.exc.StatementError) else error
            if {getattr(cause, "sqlstate", None), getattr(cause, "sqlite_errorname", None)} & _FULL:
                raise NoRoomError("the disk of its database is full") from None
            sentence, *_ = str(cause).splitlines()
            # Drop the cause: PostgreSQL's further lines quote the row, which log and traceback would show.
            raise StoreError(f"{self.name}: {sentence}") from None


def _criteria(**given: Unpack[Criteria]) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of the criteria that are given, and not None."""
    conditions: dict[str, Callable[[Any], sa.ColumnElement[bool]]] = {
        "since": lambda time: _columns.sent_at >= time,
        "before": lambda time: _columns.sent_at < time,
        "label": lambda label: _label == label,
        "labelled": lambda is_labelled: _label.is_not(None) == is_labelled,
        "is_whole": lambda is_whole: (_columns.position == WHOLE) == is_whole,
    }
    for name in (*_PICTURE, "digest"):
        conditions[name] = _columns[name].__eq__
    return [conditions[name](value) for name, value in given.items() if value is not None]


def _size(record: Record) -> int:
    """Return the bytes that the record counts for in a quota."""
    return len(record.picture) + _ROW_BYTES


def _added_size(connection: sa.Connection, records: Sequence[Record]) -> int:
    """Return the bytes that the records add to those that are stored."""
    sizes = {(each.model, each.digest, each.caller): _size(each) for each in records}
    keys = [_columns[name] for name in _KEY]
    stored = connection.execute(sa.select(*keys).where(sa.tuple_(*keys).in_([*sizes]))).all()
    return sum(sizes.values()) - sum(sizes[tuple(key)] for key in stored)


def _waiting(model: str) -> "sa.Select[tuple[str]]":
    """Return the query of the digests of the model's pictures that nobody has labelled.

    Digits of a whole reading are not among them.
    """
    whole = pictures.alias()
    readings = sa.select(*(whole.c[name] for name in _PICTURE)).where(whole.c.position == WHOLE)
    is_digit = sa.tuple_(*(_columns[name] for name in _PICTURE)).in_(readings)
    query = sa.select(_columns.digest).group_by(_columns.digest).having(sa.func.count(_label) == 0)
    return query.where(_columns.model == model, (_columns.position == WHOLE) | ~is_digit)


def _to_record(row: sa.RowMapping) -> Record:
    reading = row["reading"] and {**row["reading"], "boxes": [*map(tuple, row["reading"]["boxes"])]}
    return Record(**{**row, "box": row["box"] and tuple(row["box"]), "reading": reading})


def _upsert(is_sqlite: bool) -> sa.Insert:
    insert = sqlite_insert(pictures) if is_sqlite else postgresql_insert(pictures)
    new = insert.excluded
    latest: dict[str, Any] = {name: new[name] for name in ("version", "predicted", "confidence")}
    # Keep the request ID of the sample: it may still label the picture after a request that brought both.
    for name in ("request_id", "index", "position", "sent_at", "reading"):
        latest[name] = sa.case((new.label.is_(None), new[name]), else_=_columns[name])
    kept = {name: sa.func.coalesce(new[name], _columns[name]) for name in ("label", "hand_label")}
    held_out = {"held_out": sa.or_(new.held_out, _columns.held_out)}
    return insert.on_conflict_do_update(index_elements=_KEY, set_=latest | kept | held_out)


def _create_engine(url: sa.URL) -> sa.Engine:
    """Return an engine whose errors do not quote parameters: pictures must not get into logs."""
    is_sqlite = url.get_backend_name() == "sqlite"
    options = {"timeout": _BUSY_SECONDS} if is_sqlite else _LIBPQ_OPTIONS
    engine = sa.create_engine(url, connect_args=options, hide_parameters=True, poolclass=sa.NullPool)
    if is_sqlite:

        @sa.event.listens_for(engine, "connect")
        def configure(connection: Any, _record: Any) -> None:
            connection.execute("PRAGMA secure_delete = ON")

    return engine
