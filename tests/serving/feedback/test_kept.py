"""KeptAnswers in memory and in a real PostgreSQL server."""

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from digit_core.artifact.feedback_table import StoreError, parse_url
from digit_serving.feedback.store import KeptAnswers, remove_kept
from tests.serving.feedback.conftest import START, MakeRecord


@pytest.fixture
def kept(url: str) -> Iterator[KeptAnswers]:
    """Return kept answers of a new store."""
    with closing(KeptAnswers(url)) as opened:
        yield opened


def test_find_returns_the_positions_of_one_picture_in_order(
    kept: KeptAnswers, make_record: MakeRecord
) -> None:
    first = make_record(kind="read", index=1)
    second, other = replace(first, position=1), replace(first, index=2)
    kept.save([second, other, first])
    assert kept.find(first.request_id, 1, "") == [first, second]
    assert kept.find(first.request_id, 0, "") == []
    assert kept.find("unknown", 1, "") == []


def test_find_reused_request_id_returns_the_callers_latest_answer(
    kept: KeptAnswers, make_record: MakeRecord
) -> None:
    alice, bob, *long = (
        make_record(request_id="same", caller=caller, position=position, answered_at=START)
        for caller, position in (("alice", 0), ("bob", 0), ("", 0), ("", 1), ("", 2))
    )
    short = make_record(request_id="same", answered_at=START + timedelta(seconds=1))
    kept.save([alice, bob, *long])
    kept.save([short])
    assert kept.find("same", 0, "") == [short]
    assert kept.find("same", 0, "alice") == [alice]
    assert kept.find("same", 0, "bob") == [bob]
    assert kept.find("same", 0, "carol") == []


def test_other_process_of_the_same_store_finds_the_answer(url: str, make_record: MakeRecord) -> None:
    record = make_record()
    with closing(KeptAnswers(url)) as one, closing(KeptAnswers(url)) as another:
        one.save([record])
        assert another.find(record.request_id, 0, "") == [record]


def test_expire_deletes_answers_beyond_the_age_or_the_rows(
    kept: KeptAnswers, make_record: MakeRecord
) -> None:
    now = datetime.now(UTC)
    records = [make_record(answered_at=now - timedelta(seconds=age)) for age in (0, 10, 20, 30, 90)]

    def found() -> list[bool]:
        return [bool(kept.find(record.request_id, 0, "")) for record in records]

    kept.save(records)
    assert kept.expire(60, max_rows=100) == 1
    assert found() == [True] * 4 + [False]
    assert kept.expire(60, max_rows=2) == 2
    assert found() == [True] * 2 + [False] * 3


def test_delete_removes_the_answers_of_a_request(kept: KeptAnswers, make_record: MakeRecord) -> None:
    record, other = make_record(), make_record()
    kept.save([record, other])
    assert kept.delete(request_id=record.request_id) == 1
    assert kept.find(record.request_id, 0, "") == []
    assert kept.find(other.request_id, 0, "") == [other]


def test_answers_of_an_sqlite_store_are_in_memory_only(
    sqlite_url: str, memory: Path, tmp_path: Path, make_record: MakeRecord
) -> None:
    with closing(KeptAnswers(sqlite_url)) as kept:
        kept.save([make_record()])
    (folder,) = memory.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(tmp_path.glob("feedback.db*")) == []


def test_every_path_of_a_file_has_the_same_answers_and_another_file_others(
    sqlite_url: str, tmp_path: Path, make_record: MakeRecord
) -> None:
    record = make_record()
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    with closing(KeptAnswers(sqlite_url)) as kept:
        kept.save([record])
    for path, answers in (("link/feedback.db", [record]), ("memory/../feedback.db", [record]), ("a.db", [])):
        with closing(KeptAnswers(f"sqlite:///{tmp_path}/{path}")) as kept:
            assert kept.find(record.request_id, 0, "") == answers


def test_remove_kept_leaves_answers_that_are_in_use(
    sqlite_url: str, memory: Path, make_record: MakeRecord
) -> None:
    remove_kept(sqlite_url)
    record = make_record()
    with closing(KeptAnswers(sqlite_url)) as kept:
        kept.save([record])
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            remove_kept(sqlite_url)
        assert kept.find(record.request_id, 0, "") == [record]
    remove_kept(sqlite_url)
    assert list(memory.glob("*/*")) == []


def test_folder_that_others_may_enter_or_a_link_is_refused(
    sqlite_url: str, memory: Path, tmp_path: Path
) -> None:
    folder = memory / f"digits-{os.getuid()}"
    folder.mkdir()
    with pytest.raises(StoreError, match="not a folder that only this user may enter"):
        KeptAnswers(sqlite_url)
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="not a folder that only this user may enter"):
        KeptAnswers(sqlite_url)


@pytest.mark.slow
def test_table_of_kept_answers_in_postgresql_is_unlogged(postgresql_url: str) -> None:
    KeptAnswers(postgresql_url).close()
    engine = sa.create_engine(parse_url(postgresql_url))
    query = sa.text("SELECT relname, relpersistence FROM pg_class WHERE relname IN ('kept', 'feedback')")
    with engine.connect() as connection:
        persistence = {row.relname: row.relpersistence for row in connection.execute(query)}
    engine.dispose()
    assert persistence == {"kept": "u", "feedback": "p"}
