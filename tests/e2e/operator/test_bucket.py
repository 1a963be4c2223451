"""`digits models push` as a process that is killed in the middle of files; commands of the docs."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from digit_core.artifact.models_folder import ModelsFolder
from digit_core.artifact.versions import SUMS
from tests.processes import DIGITS, free_port, wait_until
from tests.readme import ROOT
from tests.s3 import S3Server

pytestmark = pytest.mark.e2e

URL = "s3://bucket/models"
NAMES = ("assets.extra/model.json", "fingerprint.pb", "saved_model.pb", "variables/variables.index")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with S3Server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.filesystem().mkdir("bucket")
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Models folder with a version, whose files are larger than the buffers of sockets."""

    def write(version: Path) -> None:
        for name in NAMES:
            (version / name).parent.mkdir(exist_ok=True)
            (version / name).write_bytes(name.encode() * 500_000)

    folder = ModelsFolder(tmp_path / "models", verify=lambda _: None)
    folder.publish("digits", write)
    return folder.root


def contents(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def start(*arguments: object) -> "subprocess.Popen[str]":
    command = [*DIGITS, "models", *map(str, arguments)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_push_killed_in_each_file_goes_on_and_shows_no_part(
    server: S3Server, folder: Path, tmp_path: Path
) -> None:
    bucket = server.filesystem()
    lines: list[str] = []
    while True:
        process = start("push", URL, "--models", folder)
        server.before = killing_in_second_file(process)
        out, err = process.communicate(timeout=60)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, err
        assert not bucket.exists("bucket/models/digits/1/manifest.json")
        lines.append(out.partition("\n")[0])
    assert lines == [f"Pushing {count} of 5 files of version 1 ..." for count in (5, 4, 3, 2)]
    assert out == "Pushing 1 of 5 files of version 1 ...\ns3://bucket/models/digits/1 is complete.\n"
    bucket.get("bucket/models/digits/1/", str(tmp_path / "bucket"), recursive=True)
    found = {name.partition("/")[2]: content for name, content in contents(tmp_path / "bucket").items()}
    assert contents(folder / "digits" / "1").items() <= found.items()


def killing_in_second_file(process: "subprocess.Popen[str]") -> Callable[[str, str], None]:
    """Return a hook that kills the process before the server reads the second file that it sends."""
    files: list[str] = []
    names = {Path(name).name for name in (*NAMES, SUMS)}

    def before(method: str, path: str) -> None:
        if method == "PUT" and path.rpartition("/")[2] in names:
            files.append(path)
            if len(files) == 2:
                process.kill()

    return before


def test_pull_every_second_outlives_failures_and_tells_its_latest_success(
    server: S3Server, folder: Path, tmp_path: Path
) -> None:
    port = free_port()
    assert start("push", URL, "--models", folder).communicate(timeout=60)[1] == ""
    expired, metric = f"Error: {URL}/models.config: ", "digits_models_pulled_timestamp_seconds"

    def pulled() -> float:
        page = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        return float(re.findall(rf"^{metric} (\S+)$", page, re.MULTILINE)[0])

    server.has_expired = True
    to = tmp_path / "pulled"
    with start("pull", URL, "--models", to, "--every", 0.5, "--metrics-port", port) as process:
        lines = process.stderr
        assert lines
        try:
            assert all(lines.readline().startswith(expired) for _ in range(2))
            assert pulled() == 0
            server.has_expired = False
            wait_until(lambda: pulled() > 0, process)
            assert (to / "models.config").exists()
            server.has_expired = True
            assert lines.readline().startswith(expired)
            before = pulled()
            assert 0 < time.time() - before < 60
            assert lines.readline().startswith(expired)
            assert pulled() == before
            server.has_expired = False
            wait_until(lambda: pulled() > before, process)
            process.terminate()
            assert process.wait(10) == 0
        finally:
            process.kill()


def documented(heading: str) -> list[str]:
    """Return the blocks of a section: commands, their output, and others."""
    page = (ROOT / "docs" / "how-to" / "store-versions.md").read_text()
    return re.findall(r"^```\n(.*?)^```", page.partition(f"\n## {heading}\n")[2], re.MULTILINE | re.DOTALL)


def run_documented(commands: str, folder: Path) -> str:
    done = subprocess.run(["bash", "-ec", commands], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_documented_commands_push_pull_and_sign(server: S3Server, models: Path, tmp_path: Path) -> None:
    server.filesystem().mkdir("models")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    folder = ModelsFolder(tmp_path / "models", verify=lambda _: None)
    for _ in range(2):
        folder.publish("digits", partial(shutil.copytree, models / "1", dirs_exist_ok=True))
    run_documented(".venv/bin/digits models push s3://models --version 1", tmp_path)
    shutil.rmtree(folder.root / "digits" / "1")
    commands, output, *_ = documented("Keep versions in object storage")
    assert run_documented(commands, tmp_path) == output
    commands, output, *_ = documented("Sign versions")
    assert run_documented(commands, tmp_path) == output
