"""Links and source paths of the README, CONTRIBUTING and docs."""

import re
from pathlib import Path

import pytest

from docs.render import render
from tests.readme import ROOT

FOLDERS = ("benchmarks", "client", "docs", "k8s", "serving", "tests", "training")
PAGES = sorted({ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")})
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?\)")
SOURCE_PATH = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]+)`")
# The site has them only.
GENERATED = {"openapi.json"}


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub and MkDocs give the headings of a page."""
    outside_code = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", outside_code, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_source_paths_of_page_have_targets(page: Path) -> None:
    for path, anchor in LINK.findall(page.read_text()):
        if path in GENERATED:
            continue
        target = page.parent / path if path else page
        assert target.exists(), path
        if anchor:
            assert anchor in anchors(render(target.read_text())), f"{path}#{anchor}"
    for path in SOURCE_PATH.findall(page.read_text()):
        assert (ROOT / path).exists(), path
