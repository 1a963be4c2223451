"""The README, whose commands and code are run."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """Its blocks of `sh` (beside `make run`), `shell` (with Docker), `bash` (for a cluster) or `python`."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
