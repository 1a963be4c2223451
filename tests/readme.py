"""The README and the pages of docs, whose commands and code are run."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str, text: str = README) -> list[str]:
    """Its blocks of `sh` (beside `make run`), `shell` (with Docker), `bash` (for a cluster) or `python`."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
