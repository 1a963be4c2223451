"""Fixtures: new stores, in SQLite files and in a PostgreSQL server of the tests."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from digit_core.feedback.records import Record
from tests import records
from tests.conftest import Digits

MakeRecord = Callable[..., Record]


@pytest.fixture
def make_record(digits: Digits) -> MakeRecord:
    """Return a function that makes records of different requests and digits, a minute apart from START on."""
    numbers = count()

    def make(**fields: Any) -> Record:
        number = next(numbers)
        return records.make_record(number, digits.images[number], **fields)

    return make


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """URL of an SQLite file that does not exist."""
    return f"sqlite:///{tmp_path / 'feedback.db'}"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest) -> str:
    """URL of a new SQLite file, and of a new PostgreSQL database."""
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
def postgresql_url(postgresql_server: Path) -> str:
    """URL of a new database."""
    name = f"store_{next(_databases)}"
    with closing(
        psycopg.connect(host=str(postgresql_server), user="postgres", autocommit=True)
    ) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"postgresql://postgres@/{name}?host={postgresql_server}"


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Path]:
    """Folder with the socket of a PostgreSQL server, which runs as a user other than root."""
    programs = _postgresql_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    # Not below pytest's folder, which only root may enter and whose path is too long for a socket.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    try:
        if as_user:
            shutil.chown(folder, "postgres")
        data, control = folder / "data", programs / "pg_ctl"
        options = f"-c listen_addresses= -c unix_socket_directories={folder}"
        _run(*as_user, programs / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--no-sync")
        _run(*as_user, control, "-D", data, "-l", folder / "log", "-o", options, "--wait", "start")
        try:
            yield folder
        finally:
            _run(*as_user, control, "-D", data, "--mode=fast", "stop")
    finally:
        shutil.rmtree(folder)


@contextmanager
def full_disk(url: str, smallest: int = 0) -> Iterator[None]:
    """Let PostgreSQL refuse new rows of the pictures as it does while its disk is full.

    Pictures below `smallest` bytes still find room in the table's last page.
    """
    fail = "BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            f"CREATE OR REPLACE FUNCTION fill() RETURNS trigger AS $$ {fail} $$ LANGUAGE plpgsql"
        )
        connection.execute(
            "CREATE TRIGGER fill BEFORE INSERT ON feedback_picture FOR EACH ROW "
            f"WHEN (length(NEW.picture) >= {smallest}) EXECUTE FUNCTION fill()"
        )
        yield
        connection.execute("DROP TRIGGER fill ON feedback_picture")


_databases = count()


def _postgresql_programs() -> Path | None:
    """Return the folder of the newest server's programs; Debian has it outside PATH."""
    if found := shutil.which("initdb"):
        return Path(found).parent
    folders = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((path.parent for path in folders), key=lambda path: int(path.parent.name), default=None)


def _run(*command: object) -> None:
    # A folder that the other user may enter; a server keeps its parent's output open for its lifetime.
    subprocess.run([*map(str, command)], check=True, cwd="/", stdout=subprocess.DEVNULL)
