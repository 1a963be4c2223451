"""Commands of docs/how-to/serve-your-own-model.md, run in a copy of the client and docs."""

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

CHANGE, PUBLISH, ASK = blocks("sh", (ROOT / "docs" / "how-to" / "serve-your-own-model.md").read_text())
CHANGED_FILE = Path("client") / "digit_client" / "images" / "normalisation.py"


@dataclass(frozen=True)
class Copy:
    """Copy of the client's package and of docs, whose commands import this client."""

    folder: Path
    environment: dict[str, str]

    def run(self, block: str) -> str:
        """Run commands that have to succeed; return their output."""
        done = subprocess.run(
            ["bash", "-e", "-c", block],
            cwd=self.folder,
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    for room in ("client", "docs"):
        shutil.copytree(ROOT / room, tmp_path / room)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    port, grpc_port = free_port(), free_port()
    environment = {
        "PYTHONPATH": str(tmp_path / "client"),
        "DIGITS_PORT": str(port),
        "DIGITS_GRPC_PORT": str(grpc_port),
        "DIGITS_REST_PORT": str(free_port()),
        "DIGITS_MODELS": str(tmp_path / "models" / "fashion"),
        "DIGITS_URL": f"http://127.0.0.1:{port}",
        "DIGITS_MODEL_SERVER": f"127.0.0.1:{grpc_port}",
    }
    return Copy(tmp_path, environment)


@pytest.fixture
def correct(copy: Copy) -> Iterator[int]:
    """Number of garments that the published model reads right, while it is served."""
    copy.run(CHANGE)
    accuracy = re.search(r"^Test accuracy: ([\d.]+) on 10,000", copy.run(PUBLISH), re.MULTILINE)
    assert accuracy
    with running("up", environment=copy.environment) as process:
        wait_until(lambda: answers(f"{copy.environment['DIGITS_URL']}/readyz"), process)
        yield round(float(accuracy[1]) * 10_000)


@pytest.mark.slow
@pytest.mark.skipif(
    not garments.FOLDER.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed"
)
def test_served_model_reads_as_many_garments_as_evaluated(copy: Copy, correct: int) -> None:
    *examples, over_http, over_grpc = copy.run(ASK).splitlines()
    assert over_http == f"Over HTTP {correct:,} of 10,000 are right"
    assert over_grpc == f"Over gRPC {correct:,} of 10,000 are right"
    assert all(line.startswith(garments.NAMES) for line in examples)


def test_change_edits_one_line(copy: Copy) -> None:
    copy.run(CHANGE)
    before, after = ((folder / CHANGED_FILE).read_text().splitlines() for folder in (ROOT, copy.folder))
    assert sum(old != new for old, new in zip(before, after, strict=True)) == 1
