"""docs/your-own-model.md, from its first command to its last, in a copy of what it changes."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from docs.examples.fashion import garments
from tests.processes import answers, free_port, running, wait_until
from tests.readme import ROOT, blocks

CHANGE, PUBLISH, ASK = blocks("sh", (ROOT / "docs" / "your-own-model.md").read_text())

pytestmark = pytest.mark.skipif(
    not garments.FOLDER.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed"
)


@dataclass(frozen=True)
class Copy:
    """A copy of the client's room and of the docs, whose commands use this client."""

    folder: Path
    environment: dict[str, str]

    def run(self, block: str) -> str:
        """What commands print that have to succeed."""
        done = subprocess.run(
            ["bash", "-e", "-c", block],
            cwd=self.folder,
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    folder = tmp_path_factory.mktemp("copy")
    for room in ("client", "docs"):
        shutil.copytree(ROOT / room, folder / room)
    (folder / ".venv").symlink_to(sys.prefix)
    port, grpc_port = free_port(), free_port()
    environment = {
        "PYTHONPATH": str(folder / "client"),
        "DIGITS_PORT": str(port),
        "DIGITS_GRPC_PORT": str(grpc_port),
        "DIGITS_REST_PORT": str(free_port()),
        "DIGITS_MODELS": str(folder / "models" / "fashion"),
        "DIGITS_URL": f"http://127.0.0.1:{port}",
        "DIGITS_MODEL_SERVER": f"127.0.0.1:{grpc_port}",
    }
    return Copy(folder, environment)


@pytest.fixture(scope="module")
def right(copy: Copy) -> Iterator[int]:
    """How many garments the model reads right as it was judged, while it is served."""
    copy.run(CHANGE)
    accuracy = re.search(r"^Test accuracy: ([\d.]+) on 10,000", copy.run(PUBLISH), re.MULTILINE)
    assert accuracy
    with running("up", environment=copy.environment) as process:
        wait_until(lambda: answers(f"{copy.environment['DIGITS_URL']}/readyz"), process)
        yield round(float(accuracy[1]) * 10_000)


def test_what_was_judged_is_what_answers(copy: Copy, right: int) -> None:
    *examples, over_http, over_grpc = copy.run(ASK).splitlines()
    assert over_http == f"Over HTTP {right:,} of 10,000 are right"
    assert over_grpc == f"Over gRPC {right:,} of 10,000 are right"
    assert all(line.startswith(garments.NAMES) for line in examples)


def test_it_differs_in_one_line(copy: Copy, right: int) -> None:
    path = "client/digit_client/images.py"
    before, after = ((folder / path).read_text().splitlines() for folder in (ROOT, copy.folder))
    assert sum(old != new for old, new in zip(before, after, strict=True)) == 1
