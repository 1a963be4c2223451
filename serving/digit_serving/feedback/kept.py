"""Kept answers: the answered requests of the last minutes, which all workers of a gateway share."""

import hashlib
import os
import sqlite3
import stat
import tempfile
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from digit_client.artifact.feedback_table import StoreError, kept, parse_url, sqlite_file
from digit_serving.feedback.database import Database, criteria
from digit_serving.feedback.records import Record

_MEMORY = Path("/dev/shm")  # noqa: S108 - files are in a folder that only this user may enter


class KeptAnswers:
    """Answers that may still get feedback, for a store of the same URL.

    With PostgreSQL, all gateways share them in an unlogged table. With SQLite, all processes of a user on one
    machine share a file in memory. Every method raises StoreError if the database fails. Open it in the
    process that uses it, after a fork; threads may share it.
    """

    def __init__(self, url: str) -> None:
        """Open the answers. Raise StoreError."""
        parsed = parse_url(url)
        file = sqlite_file(parsed)
        self._database = Database(
            parsed.set(database=str(_file_in_memory(file))) if file else parsed, durable=False
        )

    def keep(self, records: Sequence[Record]) -> None:
        """Add the records of answers in one transaction."""
        self._database.upsert(kept, records)

    def find(self, request_id: str, index: int, caller: str) -> list[Record]:
        """Return the records of one picture of a caller's request, by position.

        None if the request is unknown, expired, or another caller's. If the caller reused the request ID,
        only the latest answer is returned.
        """
        conditions = [kept.c.request_id == request_id, kept.c.index == index, kept.c.caller == caller]
        query = sa.select(kept).where(*conditions).order_by(kept.c.position)
        found = self._database.fetch(query)
        latest = max((record.answered_at for record in found), default=None)
        return [record for record in found if record.answered_at == latest]

    def expire(self, seconds: float, max_rows: int) -> int:
        """Delete records older than `seconds`, and the oldest beyond `max_rows`; return their number."""
        answered_at = kept.c.answered_at
        query = sa.select(answered_at).order_by(answered_at.desc()).offset(max_rows).limit(1)
        with self._database.transaction() as connection:
            newest_excess = connection.scalar(query)
        cutoff = datetime.now(UTC) - timedelta(seconds=seconds)
        return self._database.delete(kept, answered_at <= max(cutoff, newest_excess or cutoff))

    def delete(self, *, before: datetime | None = None, request_id: str | None = None) -> int:
        """Delete records as `FeedbackStore.delete` does."""
        count = self._database.delete(kept, *criteria(kept, before=before, request_id=request_id))
        self._database.vacuum(kept)
        return count

    def close(self) -> None:
        """Close all connections."""
        self._database.close()


def remove_kept(url: str) -> None:
    """Remove the answers kept for an SQLite store, unless another process has them open.

    Raise StoreError, OSError or sqlite3.Error if they remain.
    """
    store = sqlite_file(parse_url(url))
    if store is None or not (file := _file_in_memory(store)).exists():
        return
    with closing(sqlite3.connect(file, timeout=0)) as connection:
        # Needs to be the only connection, and removes the write-ahead log.
        connection.execute("PRAGMA journal_mode = DELETE")
        file.unlink()


def _file_in_memory(store: Path) -> Path:
    """Return the path of the answers kept for a store: in memory where the system has a folder for it."""
    parent = _MEMORY if _MEMORY.is_dir() else Path(tempfile.gettempdir())
    folder = parent / f"digits-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    # Everybody may create a folder, or a link, of this name there.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise StoreError(f"{folder} is not a folder that only this user may enter; remove it")
    return folder / f"{hashlib.sha256(os.fsencode(store)).hexdigest()[:16]}.db"
