"""Commands and code of the README and of docs, run in a copy of the project beside `make run`.

Blocks with Docker are run by operator/test_compose.py.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.processes import free_port
from tests.readme import ROOT, TEXT, blocks

pytestmark = pytest.mark.e2e


@dataclass(frozen=True)
class Copy:
    """Copy of the project, with services that run on free ports."""

    folder: Path
    environment: dict[str, str]

    def with_ports(self, text: str) -> str:
        """Return the text with the ports of this copy."""
        for port, variable in (
            ("8080", "DIGITS_PORT"),
            ("8500", "DIGITS_GRPC_PORT"),
            ("8501", "DIGITS_REST_PORT"),
        ):
            text = text.replace(f"localhost:{port}", f"localhost:{self.environment[variable]}")
        return text


@pytest.fixture(scope="module")
def copy(mnist_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    folder = tmp_path_factory.mktemp("copy")
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "cpu-overrides.txt"):
        shutil.copy(ROOT / name, folder)
        # Timestamps older than .venv, so that make does not rebuild it.
        os.utime(folder / name, (0, 0))
    shutil.copytree(ROOT / "docs", folder / "docs")
    (folder / "serving").symlink_to(ROOT / "serving")
    (folder / ".venv").symlink_to(sys.prefix)
    port, grpc_port = free_port(), free_port()
    environment = {
        **os.environ,
        "DIGITS_PORT": str(port),
        "DIGITS_GRPC_PORT": str(grpc_port),
        "DIGITS_MODEL_SERVER": f"localhost:{grpc_port}",
        "DIGITS_REST_PORT": str(free_port()),
        "DIGITS_URL": f"http://localhost:{port}",
        # Few digits: the commands are tested, not the accuracy.
        "DIGITS_MNIST": str(mnist_npz),
        "PYTHONUNBUFFERED": "1",
    }
    run = subprocess.Popen(
        ["make", "run"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert run.stdout
    try:
        assert any("Ctrl-C" in line for line in run.stdout), "make run ended before it was ready"
        yield Copy(folder, environment)
    finally:
        # Ctrl-C signals make and its children.
        os.killpg(run.pid, signal.SIGINT)
        run.communicate(timeout=20)


def changes_models(block: str) -> bool:
    """True if the block publishes a weaker model, or moves labels: such blocks are run last."""
    return any(f"digits {command}" in block for command in ("train", "export", "models"))


@pytest.mark.parametrize("block", blocks("python"))
def test_documentation_code_answers_five(block: str, copy: Copy) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", copy.with_ports(block)],
        cwd=copy.folder,
        env=copy.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("5")


def test_documentation_commands_succeed(copy: Copy) -> None:
    # One test: some blocks use what others have made.
    for block in sorted(blocks("sh"), key=changes_models):
        if "curl" in block and not shutil.which("curl"):
            continue
        done = subprocess.run(
            ["bash", "-e", "-c", copy.with_ports(block)],
            cwd=copy.folder,
            env=copy.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, block + done.stdout + done.stderr


def test_documented_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", TEXT, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    for target in re.findall(r"`make (\w+)`", TEXT + (ROOT / "CONTRIBUTING.md").read_text()):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
