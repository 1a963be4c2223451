"""FeedbackStore in SQLite files and in a real PostgreSQL server."""

import hashlib
import os
import sqlite3
import stat
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from digit_core.artifact.task_card import DIGITS, NO_CLASS
from digit_serving.errors import StoreError
from digit_serving.feedback.records import Agreement
from digit_serving.feedback.store import VERSION_TABLE, FeedbackStore
from digit_serving.feedback.table import parse_url
from digit_training import feedback
from digit_training.data import NO_DIGIT
from tests.conftest import Digits
from tests.serving.feedback.conftest import START, MakeRecord

HOUR = timedelta(hours=1)
RELEASE = Path(__file__).with_name("release_0_1_0.sql")
"""Database as release 0.1.0 wrote it, and the statement with which it saves a record."""
OPEN_AT_A_SIGN = """
import sys
from digit_serving.feedback.store import FeedbackStore

print("ready", flush=True)
sys.stdin.read()
FeedbackStore(sys.argv[1]).close()
"""


def execute(url: str, *statements: str) -> list[Any]:
    """Execute the statements in one transaction; return the rows of the last one."""
    engine = sa.create_engine(parse_url(url))
    try:
        with engine.begin() as connection:
            results = [connection.execute(sa.text(statement)) for statement in statements]
            return [tuple(row) for row in results[-1]] if results[-1].returns_rows else []
    finally:
        engine.dispose()


@pytest.fixture
def store(url: str) -> Iterator[FeedbackStore]:
    """Return a new store."""
    with closing(FeedbackStore(url)) as opened:
        yield opened


def test_saved_records_are_returned_oldest_first(store: FeedbackStore, make_record: MakeRecord) -> None:
    unlabelled = make_record(is_digit=None, source="sample")
    labelled = make_record(
        kind="read",
        position=3,
        label="7",
        labelled_at=START + HOUR,
        source="feedback",
        original=b"\0picture\xff",
    )
    store.save([labelled, unlabelled])
    assert list(store.records(originals=True)) == [unlabelled, labelled]
    assert list(store.records()) == [unlabelled, replace(labelled, original=None)]


def test_records_of_many_pages_are_complete_and_in_order(
    store: FeedbackStore, make_record: MakeRecord
) -> None:
    # Equal times on both sides of a page's end.
    records = [make_record(answered_at=START + number // 70 * HOUR) for number in range(350)]
    store.save(records[::-1])
    assert list(store.records()) == sorted(records, key=lambda it: (it.answered_at, it.request_id))


def test_records_are_selected_by_each_criterion(store: FeedbackStore, make_record: MakeRecord) -> None:
    old, labelled, other = make_record(), make_record(label=NO_CLASS), make_record(model="fashion")
    store.save([old, labelled, other])
    assert list(store.records(since=labelled.answered_at)) == [labelled, other]
    assert list(store.records(before=labelled.answered_at)) == [old]
    assert list(store.records(request_id=old.request_id)) == [old]
    assert list(store.records(model="fashion")) == [other]
    assert list(store.records(labelled=True)) == [labelled]
    assert list(store.records(labelled=False, model="digits")) == [old]


def test_save_record_again_keeps_the_newest_label(store: FeedbackStore, make_record: MakeRecord) -> None:
    sample = make_record(source="sample")
    first = replace(sample, label="1", labelled_at=START, source="feedback")
    second = replace(first, label="2", labelled_at=START + HOUR)
    withdrawn = replace(second, label=None, labelled_at=START + 2 * HOUR)
    same_time = replace(first, label="3")
    for saved, expected in (
        ([], []),
        ([sample], [sample]),
        ([first, same_time], [same_time]),
        ([second], [second]),
        ([first], [second]),
        ([sample], [second]),
        ([withdrawn], [withdrawn]),
    ):
        store.save(saved)
        assert list(store.records()) == expected
    assert list(store.records(labelled=False)) == [withdrawn]


def test_save_time_without_zone_is_refused_without_the_input(
    store: FeedbackStore, make_record: MakeRecord
) -> None:
    secret = os.urandom(8).hex()
    with pytest.raises(StoreError, match="needs a time zone") as refused:
        store.save([make_record(answered_at=datetime(2026, 11, 1), input=secret.encode())])
    assert secret not in "".join(traceback.format_exception(refused.value))


def test_stats_count_labels_and_agreement_by_version_and_caller(
    store: FeedbackStore, make_record: MakeRecord
) -> None:
    same = {"input": b"same", "predicted": "1"}
    store.save(
        [
            make_record(predicted="1"),
            make_record(predicted="1", label="1"),
            make_record(predicted="1", label="7"),
            make_record(predicted="1", label=NO_CLASS),
            make_record(predicted=NO_CLASS, label=NO_CLASS),
            # An input counts once for each caller.
            *(make_record(**same, version=2, caller="eve", label="1") for _ in range(20)),
            make_record(version=2, caller="eve", predicted="1", label="7"),
            make_record(**same, version=2, caller="ann", label="7"),
            make_record(model="fashion"),
        ]
    )
    assert store.stats() == [
        Agreement("digits", 1, "", records=5, labelled=4, agreeing=2),
        Agreement("digits", 2, "ann", records=1, labelled=1, agreeing=0),
        Agreement("digits", 2, "eve", records=21, labelled=2, agreeing=1),
        Agreement("fashion", 1, "", records=1, labelled=0, agreeing=0),
    ]


def test_save_holds_out_inputs_and_not_requests(url: str, make_record: MakeRecord) -> None:
    inputs = [f"input {number}".encode() for number in range(100)]
    with closing(FeedbackStore(url)) as store:
        for caller in ("ann", "eve"):
            store.save([make_record(input=each, caller=caller, held_out=None) for each in inputs])
        sides: dict[bytes, set[bool | None]] = {}
        for record in store.records():
            sides.setdefault(record.input, set()).add(record.held_out)
    assert all(len(side) == 1 for side in sides.values())
    assert 5 < sum(side == {True} for side in sides.values()) < 40


def test_database_of_the_last_release_takes_records_of_both(
    sqlite_url: str, tmp_path: Path, make_record: MakeRecord
) -> None:
    """0.1.0 wrote the file's first record, sent the statement, and accepts this revision alone."""
    created, saved = RELEASE.read_text().split("-- Saving:\n")
    with closing(sqlite3.connect(tmp_path / "feedback.db")) as connection:
        connection.executescript(created)
    with closing(FeedbackStore(sqlite_url, create=False)) as store:
        assert [record.label for record in store.records()] == ["6"]
    with closing(FeedbackStore(sqlite_url)) as store:
        store.save([make_record(held_out=None, label="1")])
        store.keep([make_record()])
    assert execute(sqlite_url, f"SELECT version_num FROM {VERSION_TABLE}") == [("0001",)]
    with closing(sqlite3.connect(tmp_path / "feedback.db")) as connection:
        row = connection.execute("SELECT * FROM feedback WHERE request_id = 'released'").fetchone()
        connection.execute(saved, ("later", *row[1:]))
        connection.commit()
    with closing(FeedbackStore(sqlite_url)) as store:
        assert [record.request_id for record in store.records()] == ["later", "released", "request-0"]


def test_database_of_a_later_release_of_the_minor_version_is_written(
    url: str, make_record: MakeRecord
) -> None:
    """Its migrations are additive."""
    with closing(FeedbackStore(url)) as store:
        store.save([make_record(input=b"same")])
    execute(
        url,
        "CREATE TABLE pictures (digest TEXT PRIMARY KEY)",
        "ALTER TABLE feedback ADD COLUMN remark TEXT",
        "ALTER TABLE feedback ADD COLUMN weight INTEGER DEFAULT 1 NOT NULL",
    )
    with closing(FeedbackStore(url)) as store:
        store.save([make_record(input=b"same", label="1", held_out=None)])
        assert store.label("digits", hashlib.sha256(b"same").hexdigest(), "2")
        assert store.delete(request_id="request-0") == 1
    assert execute(url, "SELECT request_id, label, weight FROM feedback") == [("request-1", "1", 1)]


def test_database_of_an_unreleased_build_gets_the_revision_of_releases(
    url: str, make_record: MakeRecord
) -> None:
    FeedbackStore(url).close()
    execute(url, "DROP TABLE feedback_secret", f"UPDATE {VERSION_TABLE} SET version_num = '0002'")
    FeedbackStore(url, create=False).close()
    with closing(FeedbackStore(url)) as store:
        store.save([make_record(held_out=None)])
        assert store.count() == 1
    assert execute(url, f"SELECT version_num FROM {VERSION_TABLE}") == [("0001",)]


def test_delete_removes_the_records_that_meet_all_criteria(
    store: FeedbackStore, make_record: MakeRecord
) -> None:
    first, second, third = (make_record() for _ in range(3))
    store.save([first, second, third])
    assert store.count(request_id=third.request_id, before=third.answered_at) == 0
    assert store.count(before=third.answered_at) == 2
    assert store.delete(request_id=third.request_id, before=third.answered_at) == 0
    with pytest.raises(ValueError, match="condition"):
        store.delete()
    assert store.delete(before=second.answered_at) == 1
    assert store.delete(request_id=third.request_id) == 1
    assert list(store.records()) == [second]


def test_delete_leaves_no_byte_of_the_record_in_sqlite_files(
    sqlite_url: str, tmp_path: Path, make_record: MakeRecord
) -> None:
    marker, kept_marker = os.urandom(16), os.urandom(16)
    secret = make_record(input=marker * 64, original=marker * 2000)
    with closing(FeedbackStore(sqlite_url)) as store:
        store.save([make_record(input=kept_marker), secret, *(make_record() for _ in range(300))])
        assert marker in _content(tmp_path)
        store.delete(request_id=secret.request_id)
        assert kept_marker in _content(tmp_path)
        assert marker not in _content(tmp_path)


@pytest.mark.slow
def test_delete_leaves_no_byte_of_the_record_in_postgresql_tables(
    postgresql_url: str, make_record: MakeRecord
) -> None:
    def is_found(marker: bytes) -> bool:
        """True if the marker occurs in the files of the table or of its large values."""
        relation = "FROM pg_class WHERE relname = 'feedback'"
        path = "current_setting('data_directory') || '/' || pg_relation_filepath"
        files = f"SELECT {path}(oid) {relation} UNION SELECT {path}(reltoastrelid) {relation}"
        return any(marker in Path(str(name)).read_bytes() for (name,) in execute(postgresql_url, files))

    marker, kept_marker = os.urandom(16), os.urandom(16)
    secret = make_record(input=marker, original=marker * 64)
    with closing(FeedbackStore(postgresql_url)) as store:
        store.save([make_record(input=kept_marker), secret])
        execute(postgresql_url, "CHECKPOINT")
        assert is_found(marker)
        assert is_found(kept_marker)
        store.delete(request_id=secret.request_id)
        execute(postgresql_url, "CHECKPOINT")
        assert not is_found(marker)
        assert is_found(kept_marker)


def test_delete_while_a_reader_delays_it_says_so(
    sqlite_url: str, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("digit_serving.feedback.store._BUSY_SECONDS", 0.1)
    record = make_record()
    with closing(FeedbackStore(sqlite_url)) as store:
        store.save([record])
        with closing(sqlite3.connect(parse_url(sqlite_url).database or "")) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM feedback").fetchone()
            with pytest.raises(StoreError, match="another process is reading it; repeat the deletion"):
                store.delete(request_id=record.request_id)
        assert store.delete(request_id=record.request_id) == 0


def test_new_sqlite_file_is_readable_by_its_owner_only(sqlite_url: str, tmp_path: Path) -> None:
    with closing(FeedbackStore(sqlite_url)):
        files = list(tmp_path.glob("feedback.db*"))
        assert len(files) == 3
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_open_store_of_another_minor_version_is_refused(url: str) -> None:
    FeedbackStore(url).close()
    execute(url, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    message = "has schema 9999, and this installation knows 0001 alone: another minor version of digits"
    with pytest.raises(StoreError, match=message):
        FeedbackStore(url)


def test_open_without_creation_creates_no_schema(url: str) -> None:
    for _ in range(2):
        with pytest.raises(StoreError, match="has no feedback yet"):
            FeedbackStore(url, create=False)
    FeedbackStore(url).close()
    with closing(FeedbackStore(url, create=False)) as store:
        assert store.count() == 0


def test_open_new_store_in_several_processes_at_once_succeeds(url: str) -> None:
    command, pipe = [sys.executable, "-c", OPEN_AT_A_SIGN, url], subprocess.PIPE
    with ExitStack() as stack:
        started = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(3)]
        processes = [stack.enter_context(process) for process in started]
        assert [process.stdout and process.stdout.readline() for process in processes] == ["ready\n"] * 3
        for process in processes:
            assert process.stdin
            process.stdin.close()
    assert [process.returncode for process in processes] == [0] * 3


@pytest.mark.parametrize(
    "wrong",
    [
        "feedback.db",
        "postgresql//user:secret@host/name",
        "sqlite://",
        "sqlite:///:memory:",
        "mysql://host/name",
        "mysql://host/name?password=secret",
        "postgresql://user@host:secret/name",
    ],
)
def test_open_url_of_no_store_names_the_forms(wrong: str) -> None:
    with pytest.raises(StoreError, match="sqlite:///FILE or postgresql://") as refused:
        FeedbackStore(wrong)
    assert "secret" not in str(refused.value)


def test_open_file_that_cannot_be_used_names_it(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"No such file or directory: .*/none/feedback\.db"):
        FeedbackStore(f"sqlite:///{tmp_path}/none/feedback.db")
    (tmp_path / "notes.txt").write_text("not a database" * 100)
    with pytest.raises(StoreError, match=r"notes\.txt: file is not a database"):
        FeedbackStore(f"sqlite:///{tmp_path}/notes.txt")
    FeedbackStore(f"sqlite:///{tmp_path}/feedback.db").close()
    (tmp_path / "feedback.db-wal").mkdir()
    started = time.monotonic()
    with pytest.raises(StoreError, match="unable to open database file"):
        FeedbackStore(f"sqlite:///{tmp_path}/feedback.db")
    # It waits for a busy file only.
    assert time.monotonic() - started < 20


def test_use_of_a_removed_or_replaced_file_is_refused(
    sqlite_url: str, tmp_path: Path, make_record: MakeRecord
) -> None:
    with closing(FeedbackStore(sqlite_url)) as store:
        store.save([make_record()])
        (tmp_path / "feedback.db").unlink()
        for _ in range(2):
            for use in (lambda: store.save([make_record()]), lambda: store.delete(request_id="any")):
                with pytest.raises(StoreError, match=r"feedback\.db was removed or replaced"):
                    use()
            (tmp_path / "feedback.db").touch()


def test_open_store_that_a_process_has_locked_succeeds(sqlite_url: str) -> None:
    FeedbackStore(sqlite_url).close()
    with closing(sqlite3.connect(parse_url(sqlite_url).database or "", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with closing(FeedbackStore(sqlite_url)) as store:
            assert list(store.records()) == []


@pytest.mark.parametrize("place", ["user:secret@127.0.0.1:1/name", "user@127.0.0.1:1/name?password=secret"])
def test_open_unreachable_server_hides_the_password(place: str) -> None:
    with pytest.raises(StoreError, match="connection failed") as failed:
        FeedbackStore(f"postgresql://{place}")
    assert "secret" not in str(failed.value)


def _content(folder: Path) -> bytes:
    # By another process: a process that closes a file loses SQLite's locks on it.
    return subprocess.run(["cat", *folder.glob("feedback.db*")], check=True, stdout=subprocess.PIPE).stdout


def test_unlabelled_are_among_the_least_confident_without_originals(
    store: FeedbackStore, make_record: MakeRecord
) -> None:
    records = [make_record(confidence=number / 16) for number in range(12)]
    labelled = make_record(confidence=0.1, label="1", labelled_at=START)
    other = make_record(model="other", confidence=0.1)
    store.save([*(replace(record, original=b"picture") for record in records), labelled, other])
    chosen = store.unlabelled("digits", limit=4, pool=6)
    assert len(chosen) == 4
    assert all(record in records[:6] for record in chosen)
    everything = store.unlabelled("digits", limit=20, pool=20)
    assert sorted(everything, key=lambda record: record.confidence) == records
    assert store.unlabelled("none", limit=1, pool=1) == []


def test_picture_that_was_sent_often_waits_once_until_one_of_its_records_has_a_label(
    store: FeedbackStore, make_record: MakeRecord
) -> None:
    other = make_record()
    copies = [make_record(input=b"same", confidence=confidence) for confidence in (0.5, 0.25, 0.25, 0.75)]
    store.save([other, *copies, make_record(input=b"same", model="other")])
    chosen = store.unlabelled("digits", limit=9, pool=2)
    assert sorted(chosen, key=lambda record: record.confidence) == [copies[1], other]
    assert store.count_unlabelled("digits") == 2
    store.save([replace(copies[3], label="1", labelled_at=START)])
    assert store.unlabelled("digits", limit=9, pool=9) == [other]
    assert store.count_unlabelled("digits") == 1
    assert store.count_unlabelled("other") == 1
    assert store.count_unlabelled("none") == 0


def test_label_is_that_of_all_records_of_the_input_but_those_that_callers_labelled(
    store: FeedbackStore, make_record: MakeRecord
) -> None:
    sample = make_record(source="sample", original=b"picture")
    copy = replace(sample, request_id="copy", label="5", labelled_at=START, source="feedback")
    other = make_record(model="other", input=sample.input, source="sample")
    store.save([sample, replace(sample, request_id="again"), copy, other])
    digest = hashlib.sha256(sample.input).hexdigest()
    assert store.label("digits", digest, "3")
    labels = {record.request_id: (record.label, record.source) for record in store.records()}
    by_hand = ("3", "label")
    assert labels == {
        sample.request_id: by_hand,
        "again": by_hand,
        "copy": ("5", "feedback"),
        other.request_id: (None, "sample"),
    }
    # A sample that is written late leaves the label.
    store.save([sample])
    assert store.label("digits", digest, None)
    withdrawn = next(store.records(originals=True, request_id=sample.request_id))
    assert (withdrawn.label, withdrawn.source, withdrawn.original) == (None, "sample", b"picture")
    assert not store.label("digits", "0" * 64, "3")


def test_training_reads_what_the_store_holds(
    store: FeedbackStore, url: str, make_record: MakeRecord, digits: Digits
) -> None:
    """The table is a contract between rooms, since training does not import serving."""
    store.save([make_record(label="7", held_out=False), make_record(label=NO_CLASS, held_out=True)])
    store.save([make_record(), make_record(label="7", model="fashion"), make_record(label="7", caller="eve")])
    assert len(feedback.load(url, DIGITS)) == 3
    loaded = feedback.load(url, DIGITS, ["eve"])
    assert (loaded.train.labels.tolist(), loaded.held_out.labels.tolist()) == ([7], [NO_DIGIT])
    assert np.array_equal(loaded.train.images, digits.images[:1])
    assert np.array_equal(loaded.held_out.images, digits.images[1:2])


def test_find_returns_the_positions_of_one_picture_in_order(
    store: FeedbackStore, make_record: MakeRecord
) -> None:
    first = make_record(kind="read", index=1)
    second, other = replace(first, position=1), replace(first, index=2)
    store.keep([second, other, first])
    assert store.find_kept(first.request_id, 1, "") == [first, second]
    assert store.find_kept(first.request_id, 0, "") == []
    assert store.find_kept("unknown", 1, "") == []


def test_find_reused_request_id_returns_the_callers_latest_answer(
    store: FeedbackStore, make_record: MakeRecord
) -> None:
    alice, bob, *long = (
        make_record(request_id="same", caller=caller, position=position, answered_at=START)
        for caller, position in (("alice", 0), ("bob", 0), ("", 0), ("", 1), ("", 2))
    )
    short = make_record(request_id="same", answered_at=START + timedelta(seconds=1))
    store.keep([alice, bob, *long])
    store.keep([short])
    assert store.find_kept("same", 0, "") == [short]
    assert store.find_kept("same", 0, "alice") == [alice]
    assert store.find_kept("same", 0, "bob") == [bob]
    assert store.find_kept("same", 0, "carol") == []


def test_expire_deletes_answers_beyond_the_age_or_the_rows(
    store: FeedbackStore, make_record: MakeRecord
) -> None:
    now = datetime.now(UTC)
    records = [make_record(answered_at=now - timedelta(seconds=age)) for age in (0, 10, 20, 30, 90)]

    def found() -> list[bool]:
        return [bool(store.find_kept(record.request_id, 0, "")) for record in records]

    store.keep(records)
    assert store.expire(60, max_rows=100) == 1
    assert found() == [True] * 4 + [False]
    assert store.expire(60, max_rows=2) == 2
    assert found() == [True] * 2 + [False] * 3


def test_delete_removes_the_answers_of_a_request(store: FeedbackStore, make_record: MakeRecord) -> None:
    record, other = make_record(), make_record()
    store.keep([record, other])
    # Answers are no feedback.
    assert (store.count(), list(store.records())) == (0, [])
    assert store.delete(request_id=record.request_id) == 0
    assert store.find_kept(record.request_id, 0, "") == []
    assert store.find_kept(other.request_id, 0, "") == [other]


@pytest.mark.slow
def test_table_of_kept_answers_in_postgresql_is_unlogged(postgresql_url: str) -> None:
    FeedbackStore(postgresql_url).close()
    query = "SELECT relname, relpersistence FROM pg_class WHERE relname IN ('kept', 'feedback')"
    assert dict(execute(postgresql_url, query)) == {"kept": "u", "feedback": "p"}
