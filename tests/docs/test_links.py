"""What the README and the pages link to is there."""

import re
from pathlib import Path

import pytest

from tests.readme import ROOT

FILES = sorted({ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")})
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?\)")


def anchors(text: str) -> set[str]:
    """Those that GitHub gives the headings."""
    outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", outside, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_link_leads_somewhere(file: Path) -> None:
    for path, anchor in LINK.findall(file.read_text()):
        target = file.parent / path if path else file
        assert target.exists(), path
        if anchor:
            assert anchor in anchors(target.read_text()), f"{path}#{anchor}"


def test_every_page_is_within_reach_of_the_readme() -> None:
    reached, ahead = set(), {ROOT / "README.md"}
    while ahead:
        file = ahead.pop()
        reached.add(file)
        linked = {(file.parent / path).resolve() for path, _ in LINK.findall(file.read_text()) if path}
        ahead |= {each for each in linked if each.suffix == ".md"} - reached
    assert set(FILES) <= reached
