"""Code blocks of the README and of docs, which tests run."""

import re
from pathlib import Path

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
