"""Feedback store: records with labels, and those that wait for one, in SQLite or PostgreSQL."""

import dataclasses
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from digit_client.artifact.feedback_table import agrees, distinct, feedback, parse_url
from digit_serving.feedback.database import Database, criteria
from digit_serving.feedback.records import Agreement, Record

_PAGE_ROWS = 100

_columns = feedback.c
_key = (_columns.request_id, _columns.index, _columns.position, _columns.caller)
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


class FeedbackStore:
    """Records in `sqlite:///FILE`, or for several gateways in `postgresql://USER@HOST/DATABASE`.

    Every method raises StoreError if the database fails. Open the store in the process that uses it, after a
    fork; threads may share it.
    """

    def __init__(self, url: str) -> None:
        """Open the store; create or upgrade its schema. Raise StoreError, also for a newer schema."""
        self._database = Database(parse_url(url))

    def save(self, records: Sequence[Record]) -> None:
        """Insert the records in one transaction, on disk at the return.

        A record replaces the stored one of the same request, index, position and caller, unless the label of
        that is newer.
        """
        self._database.upsert(feedback, records)

    def records(
        self,
        *,
        since: datetime | None = None,
        before: datetime | None = None,
        request_id: str | None = None,
        model: str | None = None,
        labelled: bool | None = None,
        originals: bool = False,
    ) -> Iterator[Record]:
        """Yield the records that were answered from `since` on and before `before`, oldest first.

        Their `original` is None unless `originals` is true: pictures as sent may be large.

        Keyset pagination: no transaction stays open between pages, which would delay a deletion.
        """
        conditions = criteria(
            feedback, since=since, before=before, request_id=request_id, model=model, labelled=labelled
        )
        columns = _with_original if originals else _without_original
        query = sa.select(*columns).where(*conditions).order_by(*_OLDEST_FIRST).limit(_PAGE_ROWS)
        page = self._database.fetch(query)
        while page:
            yield from page
            last = page[-1]
            key = (last.answered_at, last.request_id, last.index, last.position, last.caller)
            page = self._database.fetch(query.where(sa.tuple_(*_OLDEST_FIRST) > key))

    def labelled_inputs(
        self, model: str, *, since: datetime | None = None, originals: bool = False
    ) -> Iterator[Record]:
        """Yield each labelled input of the model once, with its newest label.

        It is held out if one of the requests that sent it is.
        """
        conditions = criteria(feedback, since=since, model=model, labelled=True)
        without_pictures: list[sa.Column[Any]] = [
            *(*_key, _columns.digest, _columns.labelled_at, _columns.held_out),
        ]
        query = sa.select(*without_pictures).where(*conditions).order_by(*_OLDEST_FIRST)
        with self._database.transaction() as connection:
            rows = connection.execute(query).all()
        held_out = {tuple(row[: len(_key)]): is_held_out for row, is_held_out in distinct(rows)}
        columns = _with_original if originals else _without_original
        keys = [*held_out]
        for start in range(0, len(keys), _PAGE_ROWS):
            page = keys[start : start + _PAGE_ROWS]
            for record in self._database.fetch(sa.select(*columns).where(sa.tuple_(*_key).in_(page))):
                key = (record.request_id, record.index, record.position, record.caller)
                yield dataclasses.replace(record, held_out=held_out[key])

    def count(self, *, before: datetime | None = None, request_id: str | None = None) -> int:
        """Return the number of records that `delete` would delete."""
        conditions = criteria(feedback, before=before, request_id=request_id)
        query = sa.select(sa.func.count()).select_from(feedback).where(*conditions)
        with self._database.transaction() as connection:
            return connection.execute(query).scalar_one()

    def stats(self) -> list[Agreement]:
        """Return the counts of each version, by model and version."""
        version = (_columns.model, _columns.version)
        query = (
            sa.select(
                *version,
                sa.func.count(),
                sa.func.count(_columns.label),
                sa.func.count().filter(agrees),
            )
            .group_by(*version)
            .order_by(*version)
        )
        with self._database.transaction() as connection:
            return [Agreement(*row) for row in connection.execute(query)]

    def unlabelled(
        self, model: str, *, above: float | None = None, limit: int, pool: int
    ) -> tuple[list[Record], float | None]:
        """Return at most `limit` records of the model that wait for a label, without `original`.

        They are chosen at random among the `pool` least confident ones whose confidence exceeds `above`. The
        second result is the `above` of further records, None if there are none beyond the pool. Of records
        with the same input, the least confident one waits, unless one has a label.
        """
        conditions = [*criteria(feedback, model=model, labelled=False), _is_first_copy]
        if above is not None:
            conditions.append(_columns.confidence > above)
        # Without inputs, which may be large: only those of the chosen records are read.
        order = _LEAST_CONFIDENT_FIRST
        query = sa.select(*order).where(*conditions).order_by(*order).limit(pool)
        with self._database.transaction() as connection:
            found = connection.execute(query).all()
        chosen = random.sample([row[1:] for row in found], min(limit, len(found)))
        records = self._database.fetch(sa.select(*_without_original).where(sa.tuple_(*_key).in_(chosen)))
        random.shuffle(records)
        return records, found[-1].confidence if len(found) == pool else None

    def progress(self, model: str, since: datetime) -> tuple[int, int]:
        """Return how many records got labels by hand from `since` on, and how many inputs wait for one."""
        by_hand = (_columns.source == "label") & (_columns.labelled_at >= since)
        query = sa.select(
            sa.func.count(_columns.label).filter(by_hand),
            sa.func.count().filter(_columns.label.is_(None) & _is_first_copy),
        ).where(_columns.model == model)
        with self._database.transaction() as connection:
            labelled, unlabelled = connection.execute(query).one()
            return labelled, unlabelled

    def label(self, record: Record, label: str | None) -> Record | None:
        """Give the record a label by hand, or with None withdraw its label, and return the labelled record.

        Return None, and change nothing, if the stored record has got another label or answer than `record`.
        """
        labelled = dataclasses.replace(
            record, label=label, labelled_at=datetime.now(UTC), source="sample" if label is None else "label"
        )
        change = (
            sa.update(feedback)
            .where(
                _columns.request_id == record.request_id,
                _columns.index == record.index,
                _columns.position == record.position,
                _columns.caller == record.caller,
                _columns.answered_at == record.answered_at,
                _columns.labelled_at.is_not_distinct_from(record.labelled_at),
            )
            .values(label=label, labelled_at=labelled.labelled_at, source=labelled.source)
        )
        with self._database.transaction() as connection:
            return labelled if connection.execute(change).rowcount else None

    def delete(self, *, before: datetime | None = None, request_id: str | None = None) -> int:
        """Delete records answered before `before`, of the request, or both, and return their number.

        The file is written anew, so that no byte of them remains; backups and replicas are not reached. With
        PostgreSQL the write-ahead log and its archives keep copies until they are recycled. Raise ValueError
        without a criterion, and StoreError if a reader delays the removal of the bytes.
        """
        count = self._database.delete(feedback, *criteria(feedback, before=before, request_id=request_id))
        # Also after no deletion: an earlier one may have been interrupted before its end.
        self._database.vacuum(feedback)
        return count

    def check_file(self) -> None:
        """Raise StoreError if the file of an SQLite store was removed or replaced, without a query.

        Close the store then: SQLite opens a new file only after all connections to the old one are closed.
        """
        self._database.check_file()

    def close(self) -> None:
        """Close all connections."""
        self._database.close()
