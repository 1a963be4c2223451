"""Feedback store: answers with labels, those that wait for one by hand, and those that may get feedback."""

import dataclasses
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Unpack

import sqlalchemy as sa

from digit_core.artifact.feedback_table import (
    Votes,
    count_votes,
    feedback,
    kept,
    parse_url,
)
from digit_serving.feedback.database import Criteria, Database, criteria
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


class FeedbackStore(Database):
    """Records in `sqlite:///FILE`, or for several gateways in `postgresql://USER@HOST/DATABASE`.

    Every method raises StoreError if the database fails. Open the store in the process that uses it, after a
    fork; threads may share it.
    """

    def __init__(self, url: str, *, create: bool = True) -> None:
        """Open the store. Raise StoreError, also for one without tables unless `create` is true."""
        super().__init__(parse_url(url), create=create)

    def records(self, *, originals: bool = False, **given: Unpack[Criteria]) -> Iterator[Record]:
        """Yield the records that meet all criteria, oldest first.

        Their `original` is None unless `originals` is true: pictures as sent may be large.

        Keyset pagination: no transaction stays open between pages, which would delay a deletion.
        """
        columns = _with_original if originals else _without_original
        query = (
            sa.select(*columns).where(*criteria(feedback, **given)).order_by(*_OLDEST_FIRST).limit(_PAGE_ROWS)
        )
        page = self.fetch(query)
        while page:
            yield from page
            last = page[-1]
            key = (last.answered_at, last.request_id, last.index, last.position, last.caller)
            page = self.fetch(query.where(sa.tuple_(*_OLDEST_FIRST) > key))

    def votes(self, *, without_callers: Sequence[str] = (), **given: Unpack[Criteria]) -> Votes:
        """Return the label of each input that meets all criteria; its rows have no pictures."""
        labelled = (_columns.label.is_not(None), _columns.caller.not_in(without_callers))
        names = ("model", "version", "predicted", "label", "source", "labelled_at", "digest", "held_out")
        columns = [*_key, *(_columns[name] for name in names)]
        query = sa.select(*columns).where(*criteria(feedback, **given), *labelled).order_by(*_OLDEST_FIRST)
        with self.transaction() as connection:
            return count_votes(connection.execute(query).all())

    def decided_records(self, votes: Votes, *, originals: bool = False) -> Iterator[Record]:
        """Yield the record of each decided input, held out or not as the votes have it."""
        held_out = {tuple(row[: len(_key)]): is_held_out for row, is_held_out in votes.decided}
        columns = _with_original if originals else _without_original
        keys = [*held_out]
        for start in range(0, len(keys), _PAGE_ROWS):
            page = keys[start : start + _PAGE_ROWS]
            for record in self.fetch(sa.select(*columns).where(sa.tuple_(*_key).in_(page))):
                key = (record.request_id, record.index, record.position, record.caller)
                yield dataclasses.replace(record, held_out=held_out[key])

    def count(self, **given: Unpack[Criteria]) -> int:
        """Return the number of records that meet all criteria."""
        query = sa.select(sa.func.count()).select_from(feedback).where(*criteria(feedback, **given))
        with self.transaction() as connection:
            return connection.execute(query).scalar_one()

    def stats(self) -> list[Agreement]:
        """Return the counts of each version and caller, by model and version."""
        group = (_columns.model, _columns.version, _columns.caller)
        query = sa.select(*group, sa.func.count()).group_by(*group).order_by(*group)
        with self.transaction() as connection:
            counts = connection.execute(query).all()
        by_caller = [self.votes(model=model).by_caller for model in {row.model for row in counts}]
        votes = [row for callers in by_caller for rows in callers.values() for row in rows]
        labelled = Counter((row.model, row.version, row.caller) for row in votes)
        agreeing = Counter(
            (row.model, row.version, row.caller) for row in votes if row.label == row.predicted
        )
        keys = [(model, version, caller) for model, version, caller, _ in counts]
        return [
            Agreement(*key, records=row[3], labelled=labelled[key], agreeing=agreeing[key])
            for key, row in zip(keys, counts, strict=True)
        ]

    def unlabelled(self, model: str, *, limit: int, pool: int) -> list[Record]:
        """Return at most `limit` records of the model that wait for a label, without `original`.

        They are chosen at random among the `pool` least confident ones. Of records with the same input, the
        least confident one waits, unless one has a label.
        """
        conditions = [*criteria(feedback, model=model, labelled=False), _is_first_copy]
        # Without inputs, which may be large: only those of the chosen records are read.
        query = sa.select(*_key).where(*conditions).order_by(*_LEAST_CONFIDENT_FIRST).limit(pool)
        with self.transaction() as connection:
            found = connection.execute(query).all()
        chosen = random.sample(list(map(tuple, found)), min(limit, len(found)))
        records = self.fetch(sa.select(*_without_original).where(sa.tuple_(*_key).in_(chosen)))
        random.shuffle(records)
        return records

    def count_unlabelled(self, model: str) -> int:
        """Return how many inputs of the model wait for a label, each counted once."""
        conditions = [*criteria(feedback, model=model, labelled=False), _is_first_copy]
        with self.transaction() as connection:
            query = sa.select(sa.func.count()).select_from(feedback).where(*conditions)
            return connection.execute(query).scalar_one()

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
        with self.transaction() as connection:
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
        found = self.fetch(sa.select(kept).where(*conditions).order_by(kept.c.position))
        latest = max((record.answered_at for record in found), default=None)
        return [record for record in found if record.answered_at == latest]

    def expire(self, seconds: float, max_rows: int) -> int:
        """Delete kept answers older than `seconds`, and the oldest beyond `max_rows`; return their number."""
        answered_at = kept.c.answered_at
        query = sa.select(answered_at).order_by(answered_at.desc()).offset(max_rows).limit(1)
        with self.transaction() as connection:
            newest_excess = connection.scalar(query)
        cutoff = datetime.now(UTC) - timedelta(seconds=seconds)
        return self.delete_rows(kept, answered_at <= max(cutoff, newest_excess or cutoff))
