"""Commands and code of the README and of docs, run in a copy of the project beside `make run`.

Blocks with Docker are run by operator/test_compose.py.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import parse
from tests.readme import ROOT, TEXT, Copy, blocks

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def copy(mnist_npz: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    # Few digits: the commands are tested, not the accuracy.
    variables = {"DIGITS_MNIST": str(mnist_npz), "PYTHONUNBUFFERED": "1"}
    copy = Copy(tmp_path_factory.mktemp("copy"), variables)
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "cpu-overrides.txt"):
        shutil.copy(ROOT / name, copy.folder)
        # Timestamps older than .venv, so that make does not rebuild it.
        os.utime(copy.folder / name, (0, 0))
    (copy.folder / "serving").symlink_to(ROOT / "serving")
    # Published already, which other tests of `digits up` wait for.
    shutil.copytree(models.parent, copy.folder / "models")
    run = subprocess.Popen(
        ["make", "run"],
        cwd=copy.folder,
        env=copy.environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert run.stdout
    try:
        assert any("Ctrl-C" in line for line in run.stdout), "make run ended before it was ready"
        yield copy
    finally:
        # Ctrl-C signals make and its children.
        os.killpg(run.pid, signal.SIGINT)
        run.communicate(timeout=20)


def changes_models(block: str) -> bool:
    """True if the block publishes a weaker model, or moves labels: such blocks are run last."""
    return any(f"digits {command}" in block for command in ("train", "export", "models"))


@pytest.mark.parametrize("block", blocks("python"))
def test_documentation_code_reads_its_picture(block: str, copy: Copy) -> None:
    five, number = (block.find(f"docs/{name}.jpg") for name in ("five", "number"))
    assert copy.python(block).startswith("2026" if five < 0 <= number else "5")


def test_documentation_commands_succeed(copy: Copy) -> None:
    # One test: some blocks use what others have made.
    for block in sorted(blocks("sh"), key=changes_models):
        if fit_alone := re.fullmatch(r"\.venv/bin/digits (train .*)\n", block):
            # Other blocks fit.
            parse(fit_alone[1].split())
        elif "curl" not in block or shutil.which("curl"):
            copy.sh(block)


def test_documented_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    text = TEXT + (ROOT / "CONTRIBUTING.md").read_text()
    for target in re.findall(r"(?:^|`)make (\w+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
