"""Kept answers in SQLite files and in a real PostgreSQL server."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from digit_core.artifact.feedback_table import parse_url
from digit_serving.feedback.store import FeedbackStore
from tests.serving.feedback.conftest import START, MakeRecord


@pytest.fixture
def kept(url: str) -> Iterator[FeedbackStore]:
    """Return kept answers of a new store."""
    with closing(FeedbackStore(url)) as opened:
        yield opened


def test_find_returns_the_positions_of_one_picture_in_order(
    kept: FeedbackStore, make_record: MakeRecord
) -> None:
    first = make_record(kind="read", index=1)
    second, other = replace(first, position=1), replace(first, index=2)
    kept.keep([second, other, first])
    assert kept.find_kept(first.request_id, 1, "") == [first, second]
    assert kept.find_kept(first.request_id, 0, "") == []
    assert kept.find_kept("unknown", 1, "") == []


def test_find_reused_request_id_returns_the_callers_latest_answer(
    kept: FeedbackStore, make_record: MakeRecord
) -> None:
    alice, bob, *long = (
        make_record(request_id="same", caller=caller, position=position, answered_at=START)
        for caller, position in (("alice", 0), ("bob", 0), ("", 0), ("", 1), ("", 2))
    )
    short = make_record(request_id="same", answered_at=START + timedelta(seconds=1))
    kept.keep([alice, bob, *long])
    kept.keep([short])
    assert kept.find_kept("same", 0, "") == [short]
    assert kept.find_kept("same", 0, "alice") == [alice]
    assert kept.find_kept("same", 0, "bob") == [bob]
    assert kept.find_kept("same", 0, "carol") == []


def test_other_process_of_the_same_store_finds_the_answer(url: str, make_record: MakeRecord) -> None:
    record = make_record()
    with closing(FeedbackStore(url)) as one, closing(FeedbackStore(url)) as another:
        one.keep([record])
        assert another.find_kept(record.request_id, 0, "") == [record]


def test_expire_deletes_answers_beyond_the_age_or_the_rows(
    kept: FeedbackStore, make_record: MakeRecord
) -> None:
    now = datetime.now(UTC)
    records = [make_record(answered_at=now - timedelta(seconds=age)) for age in (0, 10, 20, 30, 90)]

    def found() -> list[bool]:
        return [bool(kept.find_kept(record.request_id, 0, "")) for record in records]

    kept.keep(records)
    assert kept.expire(60, max_rows=100) == 1
    assert found() == [True] * 4 + [False]
    assert kept.expire(60, max_rows=2) == 2
    assert found() == [True] * 2 + [False] * 3


def test_delete_removes_the_answers_of_a_request(kept: FeedbackStore, make_record: MakeRecord) -> None:
    record, other = make_record(), make_record()
    kept.keep([record, other])
    assert kept.delete(request_id=record.request_id) == 0
    assert kept.find_kept(record.request_id, 0, "") == []
    assert kept.find_kept(other.request_id, 0, "") == [other]


def test_answers_are_no_feedback(kept: FeedbackStore, make_record: MakeRecord) -> None:
    kept.keep([make_record()])
    assert kept.count() == 0
    assert list(kept.records()) == []


@pytest.mark.slow
def test_table_of_kept_answers_in_postgresql_is_unlogged(postgresql_url: str) -> None:
    FeedbackStore(postgresql_url).close()
    engine = sa.create_engine(parse_url(postgresql_url))
    query = sa.text("SELECT relname, relpersistence FROM pg_class WHERE relname IN ('kept', 'feedback')")
    with engine.connect() as connection:
        persistence = {row.relname: row.relpersistence for row in connection.execute(query)}
    engine.dispose()
    assert persistence == {"kept": "u", "feedback": "p"}
