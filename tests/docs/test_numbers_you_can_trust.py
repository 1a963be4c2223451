"""Commands and code of docs/tutorials/numbers-you-can-trust.md, run in a copy of docs beside the service."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from digit_client import Client
from tests.readme import ROOT, Copy, blocks

pytestmark = pytest.mark.e2e

TUTORIAL = (ROOT / "docs" / "tutorials" / "numbers-you-can-trust.md").read_text()
ADD_KEY, METER, DISPLAY, DATE, TIME, SIGNS, STUDENTS, LOOK = blocks("sh", TUTORIAL)
(ASK,) = blocks("python", TUTORIAL)
DOUBTFUL = {"1.jpg": "162225", "5.jpg": "373630", "6.jpg": "104900"}
READ = {"2.jpg": "689953", "3.jpg": "210240", "4.jpg": "777316"}


@pytest.fixture(scope="module")
def service(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """The copy, with its key, beside a service that keeps pictures."""
    copy = Copy(tmp_path_factory.mktemp("tutorial"), {})
    copy.sh(ADD_KEY)
    settings = {
        "DIGITS_API_KEYS": str(copy.folder / "keys"),
        "DIGITS_FEEDBACK": f"sqlite:///{copy.folder / 'feedback.db'}",
        "DIGITS_FEEDBACK_SAMPLE": "1",
    }
    with copy.ports.up(models.parent, **settings):
        yield copy


def test_tutorial_reads_what_is_expected(service: Copy) -> None:
    assert service.sh(METER).splitlines() == ["3", "4821", "48213"]
    assert service.sh(DISPLAY).splitlines() == ["20734", "207.34", "20734"]
    assert service.sh(DATE).splitlines()[-1] == "3/10/25"
    assert service.sh(TIME).splitlines() == ["15:54"]
    assert service.sh(SIGNS).splitlines() == ["549", "54%", "101919357369", "(019) 935 7369"]
    lines = service.sh(STUDENTS).splitlines()
    printed = service.python(ASK).splitlines()
    for line, answer, (name, number) in zip(lines, printed, sorted((READ | DOUBTFUL).items()), strict=True):
        assert answer.startswith(f"{name} {number} [")
        assert line == f"docs/examples/numbers/sheets/{name}: {number}"


def test_tutorial_counts_the_numbers_that_a_person_has_labelled(service: Copy) -> None:
    key = (service.folder / "ann.key").read_text().strip()
    with Client(service.ports.url, api_key=key, keep_picture=True) as client:
        for name, number in DOUBTFUL.items():
            client.feedback(client.read(service.folder / "docs/examples/numbers/sheets" / name), number)
    names, *rows = (line.split() for line in service.sh(LOOK).splitlines())
    assert sum(int(row[names.index("LABELLED")]) for row in rows) >= len(DOUBTFUL)
