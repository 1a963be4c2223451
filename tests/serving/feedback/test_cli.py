"""`digits feedback`."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from click.testing import CliRunner, Result

from digit_core.artifact.task_card import NO_CLASS
from digit_core.feedback.records import WHOLE
from digit_core.feedback.store import FeedbackStore
from digit_core.images import decode, to_png
from digit_serving.feedback.cli import feedback
from tests.core.feedback.conftest import MakeRecord
from tests.records import START

Run = Callable[..., Result]


@pytest.fixture
def run(sqlite_url: str) -> Run:
    """Return a function that runs `digits feedback …` with the store of `store`."""

    def run_command(*arguments: object, **options: Any) -> Result:
        environment = {"DIGITS_FEEDBACK": sqlite_url}
        return CliRunner().invoke(feedback, [*map(str, arguments)], env=environment, **options)

    return run_command


def test_ls_prints_a_table_oldest_first(run: Run, store: FeedbackStore, make_record: MakeRecord) -> None:
    by_hand = make_record(predicted="3")
    store.save([make_record(predicted="1", label="7", caller="shop"), by_hand])
    store.save([make_record(index=12, position=3, label=NO_CLASS), make_record(position=WHOLE, label="12")])
    store.label("digits", {by_hand.digest: "9"})
    result = run("ls")
    assert (result.exit_code, result.stderr) == (0, "")
    headings, *lines = result.stdout.splitlines()
    assert headings.split() == [
        *("SENT", "REQUEST", "PICTURE", "MODEL", "VERSION", "PREDICTED", "CONFIDENCE", "LABEL", "CALLER")
    ]
    time = (START + timedelta(minutes=1)).astimezone().strftime("%Y-%m-%d %H:%M").split()
    assert lines[1].split() == [*time, "request-1", "0", "digits", "1", "1", "75.0%", "7", "shop"]
    assert lines[0].split()[2:] == ["request-0", "0", "digits", "1", "3", "75.0%", "9", "–"]
    assert lines[2].split()[2:] == ["request-2", "12.3", "digits", "1", "2", "75.0%", "(none)", "–"]
    assert lines[3].split()[3:] == ["0.all", "digits", "1", "2", "75.0%", "12", "–"]
    assert len({line.index("digits") for line in lines} | {headings.index("MODEL")}) == 1


def test_ls_selects_by_time_model_and_label(run: Run, store: FeedbackStore, make_record: MakeRecord) -> None:
    now = datetime.now(UTC)
    store.save(
        [
            make_record(request_id="old", sent_at=now - timedelta(days=8)),
            make_record(request_id="labelled", sent_at=now, label="1"),
            make_record(request_id="other", sent_at=now, model="fashion"),
        ]
    )
    day = (now - timedelta(days=2)).strftime("%Y-%m-%d")
    for options, requests in (
        (("--since", "7d"), ["labelled", "other"]),
        (("--since", day), ["labelled", "other"]),
        (("--unlabelled", "--model", "digits"), ["old"]),
    ):
        result = run("ls", *options)
        assert [line.split()[2] for line in result.stdout.splitlines()[1:]] == requests, result.stderr


def test_export_writes_what_each_label_is_about_once_on_its_side(
    run: Run, store: FeedbackStore, make_record: MakeRecord, tmp_path: Path
) -> None:
    part = np.zeros((40, 60, 3), np.uint8)
    part[10:20, 30:50] = (1, 2, 3)
    whole = make_record(label="7", held_out=True)
    cut = make_record(label="3", picture=to_png(part), box=(30, 10, 20, 10))
    store.save(
        [whole, replace(whole, caller="eve", held_out=False), cut, make_record(label=NO_CLASS), make_record()]
    )
    result = run("export", tmp_path / "out")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        f"{tmp_path}/out/train: 1 (3: 1)",
        f"{tmp_path}/out/held-out: 1 (7: 1)",
    ]
    written = {path.relative_to(tmp_path / "out"): path for path in (tmp_path / "out").rglob("*.png")}
    names = [Path("held-out/7", f"{whole.digest[:16]}.png"), Path("train/3", f"{cut.digest[:16]}.png")]
    assert sorted(written) == names
    assert written[names[0]].read_bytes() == whole.picture
    assert np.array_equal(decode(written[names[1]].read_bytes()), part[10:20, 30:50])


def test_export_writes_whole_readings_beside_their_numbers(
    run: Run, store: FeedbackStore, make_record: MakeRecord, tmp_path: Path
) -> None:
    part = np.zeros((40, 60), np.uint8)
    part[10:20, 30:50] = 99
    reading = {"boxes": [(30, 10, 20, 10)], "candidates": ["17", "7"]}
    common = {"position": WHOLE, "reading": reading}
    whole = make_record(label="17", picture=to_png(part), box=(30, 10, 20, 10), **common)
    split = make_record(caller="ann", label="17", **common)
    store.save([whole, make_record(label=NO_CLASS, **common), split, replace(split, caller="bob", label="1")])
    result = run("export", tmp_path / "out")
    assert result.stdout.splitlines() == [
        "Left out: 1 (less than two thirds of the callers agree)",
        f"{tmp_path}/out/train: 0 (none)",
        f"{tmp_path}/out/held-out: 0 (none)",
        f"{tmp_path}/out/lines: 1 (numbers: 1)",
    ]
    lines, name = tmp_path / "out" / "lines", whole.digest[:16]
    assert {path.name for path in lines.iterdir()} == {f"{name}.png", f"{name}.gt.txt"}
    assert (lines / f"{name}.gt.txt").read_text() == "17\n"
    assert np.array_equal(decode((lines / f"{name}.png").read_bytes()), part[10:20, 30:50])


@pytest.mark.parametrize(
    ("label", "name"),
    [("n/a", "n%2Fa"), ("..", "%2E%2E"), ("50 %?", "50 %25%3F"), ("ä b", "ä b")],
)
def test_export_names_a_folder_for_any_label(
    run: Run, store: FeedbackStore, make_record: MakeRecord, tmp_path: Path, label: str, name: str
) -> None:
    store.save([make_record(label=label), make_record(label="1")])
    result = run("export", tmp_path / "out")
    assert f"{label}: 1" in result.stdout
    assert {path.name for path in (tmp_path / "out" / "train").iterdir()} == {name, "1"}


def test_export_without_labels_of_classes_is_refused(
    run: Run, store: FeedbackStore, make_record: MakeRecord, tmp_path: Path
) -> None:
    store.save([make_record(label=NO_CLASS), make_record()])
    out = tmp_path / "exports" / "out"
    result = run("export", out)
    assert (result.exit_code, result.stderr) == (1, "Error: no picture has a label of a class\n")
    assert list(out.parent.iterdir()) == []


def test_export_that_cannot_be_written_leaves_nothing(
    run: Run, store: FeedbackStore, make_record: MakeRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save([make_record(label="1")])
    monkeypatch.setattr(Path, "write_bytes", Mock(side_effect=OSError("No space left on device")))
    out = tmp_path / "exports" / "out"
    result = run("export", out)
    assert (result.exit_code, result.stderr) == (1, "Error: No space left on device\n")
    assert list(out.parent.iterdir()) == []
    out.mkdir()
    assert run("export", out).stderr == f"Error: {out} exists\n"


@pytest.mark.usefixtures("full_disk")
def test_export_on_a_full_disk_names_the_folder(
    run: Run, store: FeedbackStore, make_record: MakeRecord, tmp_path: Path
) -> None:
    store.save([make_record(label="1")])
    result = run("export", tmp_path / "out")
    error = f"Error: {tmp_path / 'out'} can't be written: No space left on device\n"
    assert (result.exit_code, result.stderr) == (1, error)


def test_delete_asks_before_it_deletes(run: Run, store: FeedbackStore, make_record: MakeRecord) -> None:
    first, second = make_record(), make_record()
    store.save([first, second])
    arguments = ("delete", "--before", second.sent_at.isoformat())
    result = run(*arguments, input="n\n")
    assert result.exit_code == 1
    assert "Delete 1 picture?" in result.stdout
    assert store.count() == 2
    assert "Deleted 1 picture." in run(*arguments, input="y\n").stdout
    assert [record.request_id for record in store.records()] == [second.request_id]


def test_delete_takes_what_meets_all_options(run: Run, store: FeedbackStore, make_record: MakeRecord) -> None:
    now = datetime.now(UTC)
    fields: dict[str, dict[str, Any]] = {
        "old": {"sent_at": now - timedelta(days=40)},
        "recent": {"sent_at": now - timedelta(days=3)},
        "other model": {"model": "fashion"},
        "other caller": {"caller": "bob"},
        "other label": {"label": "8"},
        "left": {},
    }
    common = {"caller": "ann", "sent_at": now - timedelta(days=20), "label": "7"}
    store.save([make_record(request_id=name, **common | fields[name]) for name in fields])
    for arguments, name in (
        (("--before", "30d"), "old"),
        (("--since", "7d", "--before", "1d"), "recent"),
        (("--model", "fashion", "--caller", "ann"), "other model"),
        (("--caller", "bob"), "other caller"),
        (("--label", "8", "--caller", "ann"), "other label"),
    ):
        assert "Delete 1 picture?" in run("delete", *arguments, input="n\n").stdout
        assert run("delete", *arguments, "--yes").stdout == "Deleted 1 picture.\n"
        assert name not in {record.request_id for record in store.records()}
    assert [record.request_id for record in store.records()] == ["left"]


def test_stats_and_export_of_several_models(
    run: Run, store: FeedbackStore, make_record: MakeRecord, tmp_path: Path
) -> None:
    store.save([make_record(predicted="1", label=label) for label in ("1", "1", "7", None)])
    store.save([make_record(model="fashion", version=12, label="shirt", predicted="shoe")])
    headings, *lines = run("stats").stdout.splitlines()
    assert headings.split() == ["MODEL", "VERSION", "CALLER", "PICTURES", "LABELLED", "AGREEING"]
    assert [line.split() for line in lines] == [
        ["digits", "1", "–", "4", "3", "2", "(66.7%)"],
        ["fashion", "12", "–", "1", "1", "0", "(0.0%)"],
    ]
    result = run("export", tmp_path / "out")
    assert result.exit_code == 1
    assert "several models; choose one with --model: digits, fashion" in result.stderr
    assert run("export", tmp_path / "out", "--model", "fashion").exit_code == 0
    assert {path.parent.name for path in (tmp_path / "out").rglob("*.png")} == {"shirt"}


def test_export_leaves_out_pictures_without_a_majority_or_of_a_caller(
    run: Run, store: FeedbackStore, make_record: MakeRecord, tmp_path: Path
) -> None:
    honest = [make_record(caller="ann", label="1") for _ in range(4)]
    store.save([*honest, *(replace(record, caller="eve", label="2") for record in honest[:3])])
    result = run("export", tmp_path / "out")
    assert result.stdout.splitlines() == [
        "Left out: 3 (less than two thirds of the callers agree)",
        f"{tmp_path}/out/train: 1 (1: 1)",
        f"{tmp_path}/out/held-out: 0 (none)",
    ]
    result = run("export", tmp_path / "honest", "--without-caller", "eve")
    assert result.stdout.splitlines()[0] == f"{tmp_path}/honest/train: 4 (1: 4)"
    assert "Left out" not in result.stdout


def test_commands_without_what_they_need_are_errors(run: Run, store: FeedbackStore, tmp_path: Path) -> None:
    missing = tmp_path / "missing.db"
    for arguments, status, message in (
        (
            ("ls", "--store", f"sqlite:///{missing}"),
            1,
            f"Error: {missing} does not exist; check the store's URL\n",
        ),
        (
            ("delete", "--yes"),
            2,
            "select by --since, --before, --model, --caller, --label or --request",
        ),
        *(
            (("ls", "--since", time), 2, f"'{time}' is neither an age, such as 12h or 7d, nor a date")
            for time in ("yesterday", "2026-13-01", "99999999999d")
        ),
    ):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (status, "")
        assert message in result.stderr
    assert not missing.exists()
    result = CliRunner().invoke(feedback, ["ls"], env={"DIGITS_FEEDBACK": None})
    assert result.exit_code == 2
    assert "DIGITS_FEEDBACK" in result.stderr
