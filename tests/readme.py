"""The README and the pages of docs, whose commands and code are run."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent

# In the order in which they are run.
PAGES = (
    "README.md",
    "docs/learner.md",
    "docs/application-developer.md",
    "docs/platform-engineer.md",
    "docs/ml-engineer.md",
)
TEXT = "\n".join((ROOT / page).read_text() for page in PAGES)


def blocks(language: str, text: str = TEXT) -> list[str]:
    """Their blocks of `sh` (beside `make run`), `shell` (with Docker), `bash` (for a cluster) or `python`."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
