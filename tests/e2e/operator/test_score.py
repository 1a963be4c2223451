"""`digits score` as a process: on this machine, on S3, on a Ray cluster, stopped and killed."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from digit_core.images import to_png
from digit_serving.scoring import files
from digit_serving.scoring.files import open_folder
from digit_serving.scoring.rows import FINAL_CODES
from tests.core.linear_model_server import LinearModelServer
from tests.processes import DIGITS, inheriting, wait_until
from tests.s3 import S3Server

pytestmark = pytest.mark.e2e

BATCH = 25
DOCS = Path(__file__).parents[3] / "docs"
RAY_STARTS = 4
RAY_SECONDS = 300
"""Longest time of a run on Ray, whose tasks each start a process."""
RAY_ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
RAY_NODE = """
import ray, sys
ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""
MARK = "DIGITS_TEST_RUN"
"""Environment variable that marks a test's processes."""


@pytest.fixture(autouse=True)
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Mark of the test's processes. Kill what a failed test has left running."""
    monkeypatch.setenv(MARK, str(tmp_path))
    yield str(tmp_path)
    kill(*inheriting(MARK, tmp_path))


def start(*arguments: object, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start `digits score` as the leader of a process group, as a shell does."""
    return subprocess.Popen(
        [*DIGITS, "score", *map(str, arguments)],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def score(
    *arguments: object, status: int = 0, seconds: float = 150, environment: dict[str, str] | None = None
) -> str:
    """Run `digits score` and return its summary."""
    process = start(*arguments, environment=environment)
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == status, out + err
    assert "Traceback" not in err
    return out


def rows(output: str) -> dict[str, dict[str, Any]]:
    """Return the rows by path; fail if a picture has several."""
    filesystem, root = open_folder(output)
    found = parquet.read_table(root, filesystem=filesystem).to_pylist()
    by_path = {row["path"]: row for row in found}
    assert len(by_path) == len(found)
    return by_path


def assert_complete(source: str, output: str) -> dict[str, dict[str, Any]]:
    """Assert that the pictures that are there, and no others, have a row each; return the rows."""
    found = rows(output)
    images, _ = files.list_images(source)
    listed = {row["path"]: row["etag"] for row in images.to_pylist()}
    assert {path: row["etag"] for path, row in found.items()} == listed
    return found


def draw(folder: Path, digits: Any, count: int, *, first: int = 0) -> Path:
    """Draw digits as PNG files in three subfolders; each tenth file is damaged, cut off, or blank."""
    blank = to_png(np.zeros((40, 40), np.uint8))
    for number in range(first, first + count):
        png = to_png(digits.images[number % len(digits.images)])
        path = folder / f"{number % 3}" / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        broken = (b"no picture", png[: len(png) // 2], blank)
        path.write_bytes(broken[number // 10 % 3] if number % 10 == 9 else png)
    return folder


@pytest.fixture
def photos(tmp_path: Path, digits: Any) -> Path:
    return draw(tmp_path / "photos", digits, 400)


@pytest.fixture
def output(tmp_path: Path) -> str:
    return str(tmp_path / "results")


@pytest.fixture(scope="module")
def linear(digits: Any) -> Iterator[LinearModelServer]:
    with LinearModelServer(digits.images[:1000], digits.labels[:1000], with_is_digit=True) as server:
        yield server


@pytest.fixture
def slow(linear: LinearModelServer) -> Iterator[LinearModelServer]:
    """The model server with a delay, so that a run of 400 pictures takes seconds."""
    linear.delay = 0.4
    yield linear
    linear.delay = 0.0


@pytest.fixture
def options(output: str, linear: LinearModelServer) -> list[object]:
    return ["--output", output, "--model-server", linear.target, "--batch", BATCH]


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Ray cluster of one node, whose start Ray gives up on a busy machine after 15 seconds."""
    # Each of Ray's processes imports jsonschema, which spends two seconds on this optional package.
    stubs = tmp_path_factory.mktemp("stubs")
    (stubs / "rfc3987_syntax.py").write_text("raise ImportError")
    for attempt in range(RAY_STARTS):
        mark = f"ray {os.getpid()} {attempt}"
        node = subprocess.Popen(
            [sys.executable, "-c", RAY_NODE],
            env={**os.environ, **RAY_ENVIRONMENT, "PYTHONPATH": str(stubs), MARK: mark},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert node.stdout
            if address := node.stdout.readline().strip():
                yield address
                return
        finally:
            kill(*inheriting(MARK, mark))
            node.communicate()
    pytest.fail(f"Ray did not start in {RAY_STARTS} attempts")


def test_score_scores_every_picture_and_the_next_run_what_changed(
    models: Path, digits: Any, tmp_path: Path, output: str, mark: str
) -> None:
    photos = draw(tmp_path / "photos", digits, 600)
    unreadable, changed, gone = (
        photos / "0" / "00003.png",
        photos / "1" / "00001.png",
        photos / "0" / "00006.png",
    )
    unreadable.unlink()
    unreadable.symlink_to("none.png")
    arguments = (photos, "--output", output, "--models", models.parent)
    summary = score(*arguments, status=1)
    before = assert_complete(str(photos), output)
    assert before[str(unreadable)]["error_code"] == "not_found"
    broken = sum(row["error_code"] in FINAL_CODES for row in before.values())
    refused = sum(row["refusal"] is not None for row in before.values())
    assert broken >= 30
    assert broken + refused >= 60
    assert f"Scored     {599 - broken} of 600 pictures" in summary
    assert f"Broken     {broken}: " in summary
    assert count("To repeat", summary) == 1
    wait_until(lambda: not inheriting(MARK, mark), seconds=30)

    unreadable.unlink()
    unreadable.write_bytes((photos / "0" / "00000.png").read_bytes())
    changed.write_bytes(to_png(digits.one(4)) + b" ")
    gone.unlink()
    draw(photos, digits, 30, first=600)
    summary = score(*arguments)
    found = assert_complete(str(photos), output)
    assert (count("Skipped", summary), count("Removed", summary)) == (597, 1)
    assert " of 32 pictures" in summary
    assert found[str(changed)]["digit"] == 4
    kept = before.keys() & found.keys() - {str(changed), str(unreadable)}
    assert {path: before[path] for path in kept} == {path: found[path] for path in kept}


def test_score_photographs_asks_the_reader_of_the_models_folder(
    models: Path, tmp_path: Path, output: str
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("five.jpg", "number.jpg"):
        shutil.copy(DOCS / name, photos)
    score(photos, "--output", output, "--models", models.parent, "--read", "--expect", "####")
    assert [(row["text"], row["refusal"]) for row in rows(output).values()] == [
        ("", "unexpected"),
        ("2026", None),
    ]


def test_score_killed_driver_leaves_no_process_and_can_be_repeated(
    models: Path, photos: Path, output: str, mark: str
) -> None:
    arguments = (photos, "--output", output, "--models", models.parent, "--batch", BATCH)
    process = start(*arguments)
    wait_until(lambda: parts(output) > 0, process, seconds=180)
    process.kill()
    process.communicate()
    wait_until(lambda: not inheriting(MARK, mark), seconds=30)
    # The model server may die before the workers, whose rows are errors of their calls then.
    before = {path: row for path, row in rows(output).items() if row["error_code"] in {None, *FINAL_CODES}}
    summary = score(*arguments)
    found = assert_complete(str(photos), output)
    assert count("Skipped", summary) == len(before)
    assert before.items() <= found.items()


def interrupt(process: subprocess.Popen[str], mark: str) -> None:
    os.killpg(process.pid, signal.SIGINT)


def kill_worker(process: subprocess.Popen[str], mark: str) -> None:
    processes = inheriting(MARK, mark).items()
    kill(next(pid for pid, arguments in processes if b"spawn_main" in b" ".join(arguments)))


@pytest.mark.parametrize(
    ("stop", "status", "message"),
    [
        (interrupt, 130, "Stopped; run the command again to go on."),
        (kill_worker, 1, "Error: a worker process died; run the command again to go on"),
    ],
)
def test_score_stopped_leaves_whole_files_and_no_process(
    stop: Callable[[subprocess.Popen[str], str], None],
    status: int,
    message: str,
    photos: Path,
    output: str,
    options: list[object],
    slow: LinearModelServer,
    mark: str,
) -> None:
    process = start(photos, *options)
    wait_until(lambda: parts(output) > 0, process, seconds=180)
    stop(process, mark)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, out + err
    assert message in err
    assert "Traceback" not in err
    wait_until(lambda: not inheriting(MARK, mark), seconds=30)
    before = rows(output)
    assert 0 < len(before) < 400
    # The last files may be written before the command hears of them.
    assert count("Scored", out) + count("Broken", out) <= len(before)
    slow.delay = 0
    assert count("Skipped", score(photos, *options)) == len(before)
    assert_complete(str(photos), output)


def test_score_s3_to_s3(photos: Path, options: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = "s3://photos", "s3://results/of/photos"
    arguments = (source, *options, "--output", output)
    with S3Server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        bucket = server.filesystem()
        for name in ("photos", "results"):
            bucket.mkdir(name)
        bucket.put(f"{photos}/", "photos/", recursive=True)
        assert " of 400 pictures" in score(*arguments)
        found = assert_complete(source, output)
        assert found["s3://photos/1/00001.png"]["digit"] is not None
        bucket.rm("photos/1/00001.png")
        assert count("Removed", score(*arguments)) == 1
        assert_complete(source, output)


def test_score_on_ray_cluster_equals_this_machine(
    ray_cluster: str, photos: Path, tmp_path: Path, options: list[object]
) -> None:
    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    score(photos, *options, "--output", here)
    arguments = (photos, *options, "--output", there, "--ray", ray_cluster)
    assert " of 400 pictures" in score(*arguments, seconds=RAY_SECONDS, environment=RAY_ENVIRONMENT)
    assert assert_complete(str(photos), there) == rows(here)
    (photos / "1" / "00001.png").write_bytes(b"no picture")
    assert count("Skipped", score(*arguments, seconds=RAY_SECONDS, environment=RAY_ENVIRONMENT)) == 399
    changed = assert_complete(str(photos), there)[str(photos / "1" / "00001.png")]
    assert changed["error_code"] == "not_an_image"


def parts(output: str) -> int:
    """Return the number of result files."""
    return len(list(Path(output).glob("part-*")))


def count(name: str, summary: str) -> int:
    """Return the number on a line of the summary."""
    found = re.search(rf"^{name} +([\d,]+)", summary, re.MULTILINE)
    return int(found[1].replace(",", "")) if found else 0


def kill(*pids: int) -> None:
    """Kill processes, unless they have ended."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
