"""Code blocks of the README and of docs, which tests run in a copy of the project."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.processes import Ports

ROOT = Path(__file__).parent.parent

# Pages in the order in which tests run their blocks.
PAGES = (
    "README.md",
    "docs/tutorials/from-ten-lines.md",
    "docs/how-to/call-the-service.md",
    "docs/how-to/call-from-python.md",
    "docs/how-to/score-in-bulk.md",
    "docs/how-to/run-on-one-machine.md",
    "docs/how-to/deploy-with-compose.md",
    "docs/how-to/deploy-on-kubernetes.md",
    "docs/how-to/bring-a-model.md",
    "docs/how-to/release.md",
)
TEXT = "\n".join((ROOT / page).read_text() for page in PAGES)


def blocks(language: str, text: str = TEXT) -> list[str]:
    """Return the blocks of `sh` (with `make run`), `shell` (with Docker), `bash` (Kubernetes) or `python`."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Copy:
    """Folder with docs and .venv of the project, beside a service with ports and variables of its own."""

    folder: Path
    variables: dict[str, str]
    ports: Ports = field(default_factory=Ports)

    def __post_init__(self) -> None:
        for name, target in (("docs", ROOT / "docs"), (".venv", Path(sys.prefix))):
            (self.folder / name).symlink_to(target)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, **self.ports.environment, **self.variables}

    def sh(self, block: str) -> str:
        """Run the commands of a page, which have to succeed; return their output."""
        return self._run(["bash", "-e", "-c"], block)

    def python(self, block: str) -> str:
        """Run the code of a page; return what it prints."""
        return self._run([sys.executable, "-W", "error", "-c"], block)

    def _run(self, command: list[str], block: str) -> str:
        for port, number in (("8080", "gateway"), ("8500", "grpc"), ("8501", "rest")):
            block = block.replace(f"localhost:{port}", f"localhost:{getattr(self.ports, number)}")
        done = subprocess.run(
            [*command, block], cwd=self.folder, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, block + done.stdout + done.stderr
        return done.stdout
