"""Programs of docs/how-to/three-jobs.md, run beside the service on pictures that are drawn here."""

import csv
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.core.drawn_numbers import draw_text
from tests.readme import ROOT, Copy, blocks

pytestmark = pytest.mark.e2e

METER, EXAM, CHEQUES = blocks("python", (ROOT / "docs" / "how-to" / "three-jobs.md").read_text())
READINGS = [48223, 48257, 48260, 48299, 48301, 48337]
STUDENTS = ["127817", "379502", "461009", "206217", "678453"]
FIELDS = {"date": (740, 62), "amount": (760, 202), "account": (100, 388)}
"""Left and top of each field of a cheque."""
WRITTEN = [
    {"date": "28/06/2024", "amount": "1250.75", "account": "97743108"},
    {"date": "03/04/2021", "amount": "99.22", "account": "73311136"},
    {"date": "19/12/2025", "amount": "3043.31", "account": "48210223"},
]


@pytest.fixture(scope="module")
def service(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    copy = Copy(tmp_path_factory.mktemp("jobs"), {})
    with copy.ports.up(models.parent):
        yield copy


def save(path: Path, size: tuple[int, int], *texts: tuple[tuple[int, int], Any]) -> None:
    """Write a photograph of paper, [h, w], with texts at these places."""
    noise = np.random.default_rng(len(path.name)).integers(-6, 7, size)
    page = 240 + noise
    for (left, top), ink in texts:
        height, width = ink.shape
        page[top : top + height, left : left + width] -= (ink * 0.8).astype(int)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(cv2.imencode(".jpg", page.clip(0, 255).astype(np.uint8))[1].tobytes())


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_programs_have_ten_lines() -> None:
    assert [len(list(filter(None, block.splitlines()))) <= 10 for block in (METER, EXAM, CHEQUES)] == [
        True
    ] * 3


def test_meter_is_read_by_what_it_showed_before(service: Copy, digits: Any) -> None:
    days = [str(date(2026, 1, 1) + timedelta(index)) for index in range(len(READINGS))]
    for day, value in zip(days, READINGS, strict=True):
        ink = draw_text(digits, str(value))
        save(service.folder / "meter" / f"{day}.jpg", (140, 360), ((50, 42), ink))
    # The third photograph shows nothing.
    save(service.folder / "meter" / f"{days[2]}.jpg", (140, 360))
    printed = [line.rpartition(" ") for line in service.python(METER).splitlines()]
    read = [f"{day} {value}" for day, value in zip(days, READINGS, strict=True)]
    assert [line for line, *_ in printed] == [*read[:2], f"{days[2]} no_digit", *read[3:]]
    assert [float(confidence) > 0.5 for *_, confidence in printed] == [index != 2 for index in range(6)]


def test_sheets_belong_to_students_of_the_list(service: Copy, digits: Any) -> None:
    (service.folder / "students.txt").write_text("\n".join([*STUDENTS, "119541"]))
    for index, number in enumerate(STUDENTS):
        ink = draw_text(digits, number)
        save(service.folder / "sheets" / f"{index}.jpg", (160, 460), ((60, 50), ink))
    (service.folder / "sheets" / "torn.jpg").write_bytes(b"no picture")
    printed = service.python(EXAM).splitlines()
    assert printed == ["without a sheet: ['119541']", "twice: []"]
    first, *others = rows(service.folder / "sheets.csv")
    assert (Path(first["path"]).name, first["text"], bool(first["error"])) == ("torn.jpg", "", True)
    assert {Path(row["path"]).name: row["text"] for row in others} == {
        f"{index}.jpg": number for index, number in enumerate(STUDENTS)
    }


def test_cheques_are_read_field_by_field(service: Copy, digits: Any) -> None:
    for index, cheque in enumerate(WRITTEN):
        texts = [(FIELDS[name], draw_text(digits, text)) for name, text in cheque.items()]
        save(service.folder / "cheques" / f"{index}.jpg", (500, 1200), *texts)
    printed = service.python(CHEQUES)
    read = {Path(row["path"]).stem: row for row in rows(service.folder / "cheques.csv")}
    assert [{name: read[str(index)][name] for name in FIELDS} for index in range(len(WRITTEN))] == WRITTEN
    assert len(printed.splitlines()) == 1 + len(WRITTEN) * len(FIELDS)
