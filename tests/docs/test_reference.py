"""The reference is what the code says now."""

import re

import pytest

from docs.reference.pages import FOLDER, pages
from tests.readme import ROOT

PAGES = pages()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_as_the_code(name: str) -> None:
    assert (FOLDER / name).read_text() == PAGES[name], "`make docs` writes it anew"


def test_there_is_no_other_page() -> None:
    assert {path.name for path in FOLDER.glob("*.md")} == set(PAGES)


def test_every_variable_that_is_read_is_told() -> None:
    rooms = [path for room in ("client", "serving", "training") for path in (ROOT / room).rglob("*.py")]
    read = {name for path in rooms for name in re.findall(r"DIGITS_[A-Z_]*[A-Z]", path.read_text())}
    assert read <= set(re.findall(r"`(DIGITS_\w+)`", PAGES["settings.md"]))


@pytest.mark.parametrize("text", PAGES.values(), ids=PAGES)
def test_a_link_within_a_page_leads_somewhere(text: str) -> None:
    headings = {heading.lower() for heading in re.findall(r"^#+ (\w+)$", text, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= headings
