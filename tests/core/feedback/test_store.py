"""FeedbackStore in SQLite files and in a real PostgreSQL server."""

import os
import sqlite3
import stat
import subprocess
import sys
import traceback
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from digit_core.artifact.task_card import DIGITS, NO_CLASS
from digit_core.feedback.records import WHOLE, Agreement
from digit_core.feedback.store import FeedbackStore
from digit_core.feedback.table import NoRoomError, StoreError, parse_url, sqlite_file
from digit_core.images import to_png
from digit_training import feedback
from digit_training.data import NO_DIGIT
from tests.conftest import Digits
from tests.core.feedback.conftest import MakeRecord, full_disk
from tests.records import START

WHOLE_OF_TWO: dict[str, Any] = {
    "position": WHOLE,
    "reading": {"boxes": [(1, 2, 3, 4), (5, 2, 3, 4)], "candidates": ["1", "17"]},
}
OPEN_AT_A_SIGN = """
import sys
from digit_core.feedback.store import FeedbackStore

print("ready", flush=True)
sys.stdin.read()
FeedbackStore(sys.argv[1])
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
def store(url: str) -> FeedbackStore:
    """Return a new store."""
    return FeedbackStore(url)


def test_saved_records_are_returned_oldest_first(store: FeedbackStore, make_record: MakeRecord) -> None:
    sample = make_record()
    labelled = make_record(label="7", caller="shop", position=3, box=(1, 2, 3, 4))
    whole = make_record(**WHOLE_OF_TWO)
    store.save([whole, labelled, sample])
    assert store.records(pictures=True) == [sample, labelled, whole]
    assert [record.picture for record in store.records()] == [b""] * 3


def test_records_are_selected_by_each_criterion(store: FeedbackStore, make_record: MakeRecord) -> None:
    old, labelled, other = make_record(), make_record(label=NO_CLASS), make_record(model="fashion", index=2)
    store.save([old, labelled, other])
    store.label("fashion", {other.digest: "shirt"})
    for given, expected in (
        ({"since": labelled.sent_at}, [labelled, other]),
        ({"before": labelled.sent_at}, [old]),
        ({"request_id": old.request_id, "caller": ""}, [old]),
        ({"request_id": other.request_id, "index": 0}, []),
        ({"caller": "shop"}, []),
        ({"model": "fashion"}, [other]),
        ({"label": NO_CLASS}, [labelled]),
        ({"label": "shirt"}, [other]),
        ({"labelled": False}, [old]),
    ):
        assert [found.request_id for found in store.records(**given)] == [it.request_id for it in expected]
        assert store.count(**given) == len(expected)


def test_save_picture_again_replaces_the_callers_vote(store: FeedbackStore, make_record: MakeRecord) -> None:
    sample = make_record(held_out=None)
    again = replace(sample, label="1", request_id="again", sent_at=START + timedelta(days=1), version=2)
    other = replace(again, label="7", caller="eve")
    third = replace(sample, request_id="third", index=4)
    for saved, votes, request_id in (
        (sample, [None], sample.request_id),
        (again, ["1"], sample.request_id),
        (replace(again, label="2"), ["2"], sample.request_id),
        (other, ["2", "7"], sample.request_id),
        # A sample that is written later leaves the label, and its own request ID labels it.
        (third, ["2", "7"], "third"),
        (replace(sample, box=(1, 2, 3, 4)), ["2", None, "7"], "third"),
    ):
        store.save([saved])
        records = sorted(store.records(), key=lambda record: (record.caller, record.box is not None))
        assert [record.label for record in records] == votes
        assert records[0].request_id == request_id
    # Copies of a picture are on the same side.
    assert len({record.held_out for record in store.records() if record.box is None}) == 1


def test_save_takes_labels_of_known_records_and_adds_none(
    store: FeedbackStore, make_record: MakeRecord
) -> None:
    first, second, third = (make_record(label="1") for _ in range(3))
    store.save([first, second])
    relabelled = [replace(first, label=None), replace(second, label="2"), replace(third, caller="eve")]
    store.save([third], known=relabelled)
    assert [record.label for record in store.records()] == [None, "2", "1"]


def test_latest_picture_is_a_whole_reading_with_its_digits(
    store: FeedbackStore, make_record: MakeRecord
) -> None:
    common = {"request_id": "id", "index": 1, "sent_at": START + timedelta(hours=1)}
    digits = [make_record(position=position, **common) for position in range(2)]
    whole = make_record(**WHOLE_OF_TWO, **common)
    others: list[dict[str, Any]] = [{"sent_at": START}, {"index": 0}, {"caller": "eve"}, {"model": "fashion"}]
    store.save([*digits, whole, *(make_record(**common | other) for other in others)])
    assert store.latest(request_id="id", index=1, caller="", model="digits") == [whole, *digits]
    assert store.latest(digest=digits[1].digest) == [whole, *digits]
    assert store.latest(digest="none") == []


def test_votes_and_voted_of_pictures_that_several_callers_labelled(
    store: FeedbackStore, make_record: MakeRecord
) -> None:
    agreed, split, by_hand, sample = (
        make_record(caller="ann", label=label) for label in ("1", "1", "1", None)
    )
    store.save([agreed, split, by_hand, sample, replace(split, caller="eve", label="2")])
    store.save([replace(agreed, caller=caller, label="1", held_out=True) for caller in ("bob", "cid")])
    store.save([replace(agreed, caller="eve", label="2"), make_record(model="fashion", label="shirt")])
    assert store.label("digits", {by_hand.digest: "9"})
    assert not store.label("fashion", {by_hand.digest: "9"})
    votes = store.votes(model="digits")
    assert (votes.labels, votes.conflicts) == ({agreed.digest: "1", by_hand.digest: "9"}, 1)
    voted = [(record.picture, record.held_out, label) for record, label in store.voted("digits", votes)]
    assert voted == [(agreed.picture, True, "1"), (by_hand.picture, False, "9")]
    assert store.votes(model="digits", without_callers=["eve"]).conflicts == 0
    assert store.label("digits", {by_hand.digest: None})
    assert store.votes(model="digits").labels[by_hand.digest] == "1"


def test_stats_count_by_version_and_caller(store: FeedbackStore, make_record: MakeRecord) -> None:
    store.save([make_record(predicted=label, label="7", caller="ann") for label in "177"])
    store.save(
        [make_record(version=2), make_record(version=2, label="2"), make_record(model="a", caller="b")]
    )
    assert store.stats() == [
        Agreement("a", 1, "b", 1, 0, 0),
        Agreement("digits", 1, "ann", 3, 3, 2),
        Agreement("digits", 2, "", 2, 1, 1),
    ]


def test_unlabelled_are_among_the_least_confident_once_each(
    store: FeedbackStore, make_record: MakeRecord
) -> None:
    records = [make_record(confidence=number / 16) for number in range(12)]
    store.save([*records, replace(records[0], caller="bob", confidence=0.9)])
    store.save([make_record(confidence=0, label="1"), make_record(model="other", confidence=0)])
    chosen = store.unlabelled("digits", limit=4, pool=6)
    assert len({record.digest for record in chosen}) == 4
    assert {record.digest for record in chosen} <= {record.digest for record in records[:6]}
    assert store.count_unlabelled("digits") == len(store.unlabelled("digits", limit=20, pool=20)) == 12
    store.save([replace(records[0], caller="cid", label="3")])
    store.label("digits", {records[1].digest: NO_CLASS})
    assert store.count_unlabelled("digits") == 10
    assert (store.unlabelled("none", limit=1, pool=1), store.count_unlabelled("none")) == ([], 0)


def test_unlabelled_digits_of_a_whole_reading_wait_with_it(
    store: FeedbackStore, make_record: MakeRecord
) -> None:
    common = {"request_id": "id", "sent_at": START}
    digits = [make_record(position=position, confidence=0.1, **common) for position in range(2)]
    whole, alone = make_record(confidence=0.5, **WHOLE_OF_TWO, **common), make_record(confidence=0.4)
    store.save([*digits, whole, alone])
    assert store.unlabelled("digits", limit=9, pool=9) == [alone, whole]
    assert store.count_unlabelled("digits") == 2
    store.label("digits", {whole.digest: "1"})
    assert store.unlabelled("digits", limit=9, pool=9) == [alone]


def test_expire_deletes_old_pictures_without_a_label(store: FeedbackStore, make_record: MakeRecord) -> None:
    old, now = {"sent_at": datetime.now(UTC) - timedelta(days=31)}, {"sent_at": datetime.now(UTC)}
    by_hand, voted, recent = make_record(**old), make_record(**old, label="1"), make_record(**now)
    store.save([by_hand, voted, recent, make_record(**old)])
    store.label("digits", {by_hand.digest: "3"})
    assert store.expire(30) == 1
    assert {record.request_id for record in store.records()} == {
        each.request_id for each in (by_hand, voted, recent)
    }


def test_error_of_the_database_quotes_no_input(store: FeedbackStore, make_record: MakeRecord) -> None:
    record = replace(make_record(caller="ann@example.com"), predicted=None)  # type: ignore[arg-type]
    with pytest.raises(StoreError) as caught:
        store.save([record])
    text = "".join(traceback.format_exception(caught.value))
    assert "predicted" in text
    assert "ann@example.com" not in text


def test_delete_needs_a_condition(store: FeedbackStore, make_record: MakeRecord) -> None:
    store.save([make_record()])
    with pytest.raises(ValueError, match="condition"):
        store.delete(since=None)
    assert store.count() == 1


@pytest.mark.parametrize("given", [{"caller": "shop"}, {"label": "7"}, {"before": START}, {"model": "old"}])
def test_delete_leaves_no_byte_of_the_records(
    store: FeedbackStore, url: str, make_record: MakeRecord, tmp_path: Path, given: dict[str, Any]
) -> None:
    markers = [os.urandom(32) for _ in range(3)]
    common = {"caller": "shop", "label": "7", "model": "old", "sent_at": START - timedelta(days=1)}
    # Large values lie in other pages, of PostgreSQL in another file.
    store.save([make_record(picture=markers[0] * size, **common) for size in (1, 4000)])
    store.save(
        [make_record(picture=markers[1], caller="bob", label="1"), *(make_record() for _ in range(99))]
    )
    assert [marker in _content(url, tmp_path) for marker in markers] == [True, True, False]
    assert store.delete(**given) == 2
    assert [marker in _content(url, tmp_path) for marker in markers] == [False, True, False]
    assert store.count() == 100


def _content(url: str, folder: Path) -> bytes:
    """Return the content of the files of the table."""
    if url.startswith("sqlite"):
        # By another process: a process that closes a file loses SQLite's locks on it.
        return subprocess.run(["cat", *folder.glob("feedback.db*")], check=True, capture_output=True).stdout
    execute(url, "CHECKPOINT")
    relation = "FROM pg_class WHERE relname = 'feedback_picture'"
    path = "current_setting('data_directory') || '/' || pg_relation_filepath"
    files = execute(url, f"SELECT {path}(oid) {relation} UNION SELECT {path}(reltoastrelid) {relation}")
    return b"".join(Path(str(name)).read_bytes() for (name,) in files)


def test_delete_while_a_reader_delays_it_is_refused(
    sqlite_url: str, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("digit_core.feedback.store._BUSY_SECONDS", 0.1)
    store = FeedbackStore(sqlite_url)
    store.save([make_record()])
    with closing(sqlite3.connect(parse_url(sqlite_url).database or "")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM feedback_picture").fetchone()
        with pytest.raises(StoreError, match="database is locked"):
            store.delete(model="digits")
    assert store.delete(model="digits") == 1


def test_new_sqlite_file_is_readable_by_its_owner_only(sqlite_url: str, tmp_path: Path) -> None:
    FeedbackStore(sqlite_url)
    (file,) = tmp_path.glob("feedback.db*")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_later_release_of_the_minor_version_may_add_columns_and_tables(
    url: str, make_record: MakeRecord
) -> None:
    store = FeedbackStore(url)
    store.save([make_record()])
    execute(
        url,
        "CREATE TABLE more (digest TEXT PRIMARY KEY)",
        "ALTER TABLE feedback_picture ADD COLUMN remark TEXT",
        "ALTER TABLE feedback_picture ADD COLUMN weight INTEGER DEFAULT 1 NOT NULL",
    )
    store = FeedbackStore(url)
    store.save([make_record(label="1", held_out=None)])
    assert store.delete(request_id="request-0") == 1
    assert execute(url, "SELECT request_id, label, weight FROM feedback_picture") == [("request-1", "1", 1)]


@pytest.mark.slow
def test_save_to_a_database_whose_disk_is_full_says_so_without_its_name(
    postgresql_url: str, make_record: MakeRecord
) -> None:
    store = FeedbackStore(postgresql_url)
    with full_disk(postgresql_url):
        for write in (partial(store.save, [make_record()]), partial(store.check, insert=True)):
            with pytest.raises(NoRoomError, match=r"^the disk of its database is full$"):
                write()
    store.check(insert=True)


@pytest.mark.slow
def test_check_of_a_disk_that_has_room_for_small_rows_only_fails(postgresql_url: str) -> None:
    store = FeedbackStore(postgresql_url)
    with full_disk(postgresql_url, smallest=20_000), pytest.raises(NoRoomError):
        store.check(insert=True)


def test_check_leaves_no_row(url: str) -> None:
    store = FeedbackStore(url)
    store.check(insert=True)
    assert execute(url, "SELECT count(*) FROM feedback_picture") == [(0,)]


@pytest.mark.parametrize("revision", ["0001", "0004", "9999"])
@pytest.mark.parametrize("create", [True, False])
def test_open_store_of_another_release_is_refused_and_changes_nothing(
    url: str, create: bool, revision: str, tmp_path: Path
) -> None:
    statements = [
        "CREATE TABLE feedback_schema (version_num VARCHAR(32) PRIMARY KEY)",
        f"INSERT INTO feedback_schema VALUES ('{revision}')",
        "CREATE TABLE feedback (request_id TEXT)",
        "INSERT INTO feedback VALUES ('released')",
    ]
    if file := sqlite_file(parse_url(url)):
        # Release 0.1.0 left the file so.
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
    execute(url, *statements)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    message = f"has the schema {revision} of another release, .*: export its pictures with that release"
    with pytest.raises(StoreError, match=message) as refused:
        FeedbackStore(url, create=create)
    assert str(refused.value).startswith(url.replace("postgresql:", "postgresql+psycopg:").partition("?")[0])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert execute(url, "SELECT request_id FROM feedback") == [("released",)]


def test_open_without_creation_creates_neither_file_nor_schema(url: str) -> None:
    if file := sqlite_file(parse_url(url)):
        with pytest.raises(StoreError, match=r"feedback\.db does not exist"):
            FeedbackStore(url, create=False)
        file.touch()
    for _ in range(2):
        with pytest.raises(StoreError, match="has no feedback yet"):
            FeedbackStore(url, create=False)
    FeedbackStore(url)
    assert FeedbackStore(url, create=False).count() == 0


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


@pytest.mark.parametrize("place", ["user:secret@127.0.0.1:1/name", "user@127.0.0.1:1/name?password=secret"])
def test_open_unreachable_server_hides_the_password(place: str) -> None:
    with pytest.raises(StoreError, match="connection failed") as failed:
        FeedbackStore(f"postgresql://{place}")
    assert "secret" not in str(failed.value)


def test_training_reads_what_the_store_holds(
    store: FeedbackStore, url: str, make_record: MakeRecord, digits: Digits
) -> None:
    """The table is a contract between rooms, since training does not import serving."""
    large = np.zeros((100, 80), np.uint8)
    large[30:58, 20:48] = digits.images[9]
    store.save([make_record(label="7"), make_record(label=NO_CLASS, held_out=True)])
    store.save([make_record(), make_record(label="7", model="fashion"), make_record(label="7", caller="eve")])
    store.save([make_record(picture=to_png(large), box=(20, 30, 28, 28), label="3")])
    # A whole reading of one digit has the label of a digit, and is none.
    store.save([make_record(label="7", **WHOLE_OF_TWO)])
    assert len(feedback.load(url, DIGITS)) == 4
    loaded = feedback.load(url, DIGITS, ["eve"])
    assert (loaded.train.labels.tolist(), loaded.held_out.labels.tolist()) == ([7, 3], [NO_DIGIT])
    assert np.array_equal(loaded.train.images[0], digits.images[0])
    assert np.corrcoef(loaded.train.images[1].ravel(), digits.images[9].ravel())[0, 1] > 0.8
    assert np.array_equal(loaded.held_out.images, digits.images[1:2])


def test_sizes_are_those_of_each_callers_pictures(store: FeedbackStore, make_record: MakeRecord) -> None:
    assert store.sizes() == {}
    first, second, other = make_record(), make_record(), make_record(caller="shop")
    store.save([first, second, other])
    sizes = {
        "": len(first.picture) + len(second.picture) + 2 * 1024,
        "shop": len(other.picture) + 1024,
    }
    assert store.sizes() == sizes
    store.save([replace(first, label="7", request_id="again")], known=[replace(second, label="1")])
    assert store.sizes() == sizes
    store.delete(caller="shop")
    assert store.sizes() == {"": sizes[""]}


def test_save_admits_the_bytes_that_it_adds(store: FeedbackStore, make_record: MakeRecord) -> None:
    def refuse(added: int) -> None:
        raise LookupError(added)

    admitted: list[int] = []
    first, second = make_record(), make_record()
    store.save([first], admit=admitted.append)
    store.save([first, second], admit=admitted.append)
    store.save([replace(first, label="7")], known=[second], admit=admitted.append)
    assert admitted == [len(first.picture) + 1024, len(second.picture) + 1024, 0]
    with pytest.raises(LookupError):
        store.save([make_record()], admit=refuse)
    assert store.count() == 2
