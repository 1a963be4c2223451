"""`digits feedback`."""

import io
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import ExifTags, Image

from digit_core.artifact.task_card import NO_CLASS
from digit_core.images import to_png
from digit_serving.feedback.cli import feedback
from digit_serving.feedback.store import FeedbackStore
from tests.conftest import Digits
from tests.serving.feedback.conftest import START, MakeRecord

Run = Callable[..., Result]


@pytest.fixture
def store(sqlite_url: str) -> Iterator[FeedbackStore]:
    """Return a new store."""
    with closing(FeedbackStore(sqlite_url)) as opened:
        yield opened


@pytest.fixture
def run(sqlite_url: str) -> Run:
    """Return a function that runs `digits feedback …` with the store of `store`."""

    def run_command(*arguments: object, **options: Any) -> Result:
        environment = {"DIGITS_FEEDBACK": sqlite_url}
        return CliRunner().invoke(feedback, [*map(str, arguments)], env=environment, **options)

    return run_command


def test_ls_prints_a_table_oldest_first(run: Run, store: FeedbackStore, make_record: MakeRecord) -> None:
    store.save(
        [
            make_record(predicted="1", label="7", source="feedback"),
            make_record(kind="read", index=12, position=3, predicted="2", source="sample"),
            make_record(predicted="3", label=NO_CLASS, source="label"),
        ]
    )
    result = run("ls")
    assert (result.exit_code, result.stderr) == (0, "")
    headings, *lines = result.stdout.splitlines()
    assert headings.split() == [
        *("ANSWERED", "REQUEST", "INPUT", "MODEL", "VERSION", "PREDICTED", "CONFIDENCE", "LABEL", "SOURCE")
    ]
    time = START.astimezone().strftime("%Y-%m-%d %H:%M").split()
    assert lines[0].split() == [*time, "request-0", "0", "digits", "1", "1", "75.0%", "7", "feedback"]
    assert lines[1].split()[2:] == ["request-1", "12.3", "digits", "1", "2", "75.0%", "–", "sample"]
    assert lines[2].split()[-2:] == ["(none)", "label"]
    assert len({line.index("digits") for line in lines} | {headings.index("MODEL")}) == 1


def test_ls_selects_by_time_model_and_label(run: Run, store: FeedbackStore, make_record: MakeRecord) -> None:
    now = datetime.now(UTC)
    store.save(
        [
            make_record(request_id="old", answered_at=now - timedelta(days=8)),
            make_record(request_id="labelled", answered_at=now, label="1"),
            make_record(request_id="other", answered_at=now, model="fashion"),
        ]
    )
    day = (now - timedelta(days=2)).strftime("%Y-%m-%d")
    assert _requests(run("ls", "--since", "7d")) == ["labelled", "other"]
    assert _requests(run("ls", "--since", day)) == ["labelled", "other"]
    assert _requests(run("ls", "--unlabelled", "--model", "digits")) == ["old"]


def test_show_prints_fields_and_picture_of_each_input_and_writes_them(
    run: Run, store: FeedbackStore, make_record: MakeRecord, digits: Digits, tmp_path: Path
) -> None:
    pixels = np.zeros((28, 28), np.uint8)
    pixels[1, 2:4] = 255
    answer = {"request_id": "asked", "caller": "shop", "kind": "read"}
    store.save(
        [
            make_record(**answer, position=1, predicted="8"),
            make_record(**answer, input=to_png(pixels), label="7", original=b"1234"),
            make_record(request_id="another"),
        ]
    )
    lines = run("show", "asked", "--png", tmp_path / "out.png").stdout.splitlines()
    fields, picture, second = lines[:11], lines[11:39], lines[40:]
    assert [field.split() for field in fields[:3]] == [
        ["request", "asked"],
        ["caller", "shop"],
        ["input", "0.0", "(read)"],
    ]
    assert fields[7].split()[:2] == ["label", "7,"]
    assert fields[10].split() == ["original", "0.0", "kB"]
    assert picture[:3] == ["", "    ████", ""]
    assert "predicted  8 (75.0%)" in second
    assert len(second) == 11 + 28
    with Image.open(tmp_path / "out.png") as image:
        assert (np.asarray(image) == np.hstack([pixels, digits.images[0]])).all()


def test_export_folders_split_as_training_does(
    run: Run, store: FeedbackStore, make_record: MakeRecord, digits: Digits, tmp_path: Path
) -> None:
    records = [make_record(label=str(label)) for label in digits.labels[:200]]
    store.save([*records, make_record(label=NO_CLASS), make_record()])
    result = run("export", tmp_path / "out")
    assert (result.exit_code, result.stderr) == (0, "")
    for name, held_out in (("train", False), ("held-out", True)):
        part = [record for record in records if record.held_out == held_out]
        written = {path.read_bytes(): path.parent.name for path in (tmp_path / "out" / name).rglob("*.png")}
        assert written == {record.input: record.label for record in part}
        assert len(written) >= 20
        counted = Counter(record.label for record in part)
        printed = f"{tmp_path / 'out' / name}: {len(part)} (0: {counted['0']}, 1: {counted['1']}, "
        assert printed in result.stdout


def test_export_writes_an_input_once_and_names_files_by_request_and_caller(
    run: Run, store: FeedbackStore, make_record: MakeRecord, tmp_path: Path
) -> None:
    often, *apart = (to_png(np.full((28, 28), value, np.uint8)) for value in range(3))
    later = START + timedelta(days=1)
    store.save(
        [
            make_record(input=often, label="2", labelled_at=START, held_out=True),
            make_record(input=often, label="8", labelled_at=later, held_out=False),
            *(
                make_record(request_id="same", caller=caller, label="9", held_out=False, input=picture)
                for caller, picture in (("", apart[0]), ("bob", apart[1]))
            ),
        ]
    )
    assert run("export", tmp_path / "out").exit_code == 0
    written = {str(path.relative_to(tmp_path / "out")): path for path in (tmp_path / "out").rglob("*.png")}
    assert {name: path.read_bytes() for name, path in written.items()} == {
        "held-out/8/request-1-0-0.png": often,
        "train/9/same-0-0.png": apart[0],
        # Two callers may choose the same request ID.
        "train/9/bob@same-0-0.png": apart[1],
    }


def test_export_originals_are_upright_and_on_white(
    run: Run, store: FeedbackStore, make_record: MakeRecord, tmp_path: Path
) -> None:
    turned, clear = io.BytesIO(), io.BytesIO()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (40, 30)).save(turned, "JPEG", exif=exif)
    Image.new("RGBA", (5, 4)).save(clear, "PNG")
    inputs = [to_png(np.full((28, 28), value, np.uint8)) for value in range(4)]
    fields = {"held_out": False, "label": "1"}
    store.save(
        [
            make_record(**fields, input=inputs[0], original=turned.getvalue()),
            make_record(**fields, input=inputs[1], original=clear.getvalue()),
            make_record(**fields, input=inputs[2]),
            make_record(**fields, input=inputs[3], original=clear.getvalue(), kind="read"),
        ]
    )
    assert run("export", tmp_path / "out", "--originals").exit_code == 0
    upright, white, *others = sorted((tmp_path / "out" / "train" / "1").iterdir())
    with Image.open(upright) as image:
        assert image.size == (30, 40)
    with Image.open(white) as image:
        assert (np.asarray(image) == 255).all()
    assert [path.read_bytes() for path in others] == inputs[2:]


@pytest.mark.parametrize("label", ["..", ".hidden", "a/b", None, NO_CLASS])
def test_export_of_no_label_that_names_a_folder_is_refused(
    run: Run, store: FeedbackStore, make_record: MakeRecord, tmp_path: Path, label: str | None
) -> None:
    is_class = label not in (None, NO_CLASS)
    store.save([make_record(label=label), *([make_record(label="1")] if is_class else [])])
    out = tmp_path / "exports" / "out"
    result = run("export", out)
    error = f"the label {label!r} cannot name a folder" if is_class else "no answer has a label of a class"
    assert (result.exit_code, result.stderr) == (1, f"Error: {error}\n")
    assert list(out.parent.iterdir()) == []


def test_export_that_cannot_be_written_leaves_nothing(
    run: Run, store: FeedbackStore, make_record: MakeRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_file: Path, _content: bytes) -> None:
        raise OSError("No space left on device")

    store.save([make_record(label="1")])
    monkeypatch.setattr(Path, "write_bytes", fail)
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
    arguments = ("delete", "--before", second.answered_at.isoformat())
    result = run(*arguments, input="n\n")
    assert result.exit_code == 1
    assert "Delete 1 answer?" in result.stdout
    assert len(list(store.records())) == 2
    assert "Deleted 1 answer." in run(*arguments, input="y\n").stdout
    assert list(store.records()) == [second]


def test_delete_takes_what_meets_all_options_and_leaves_no_byte_of_it(
    run: Run, store: FeedbackStore, make_record: MakeRecord, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    fields: dict[str, dict[str, Any]] = {
        "old": {"answered_at": now - timedelta(days=40)},
        "recent": {"answered_at": now - timedelta(days=3)},
        "other model": {"model": "fashion"},
        "other caller": {"caller": "bob"},
        "left": {},
    }
    common = {"caller": "ann", "answered_at": now - timedelta(days=20)}
    inputs = {name: os.urandom(32) for name in fields}
    for save in (store.save, store.keep):
        save([make_record(request_id=name, input=inputs[name], **common | fields[name]) for name in fields])
    for arguments, name in (
        (("--before", "30d"), "old"),
        (("--since", "7d", "--before", "1d"), "recent"),
        (("--model", "fashion", "--caller", "ann"), "other model"),
        (("--caller", "bob"), "other caller"),
    ):
        assert "Delete 1 answer?" in run("delete", *arguments, input="n\n").stdout
        assert run("delete", *arguments, "--yes").stdout == "Deleted 1 answer.\n"
        assert name not in {record.request_id for record in store.records()}
    # By another process: a process that closes a file loses SQLite's locks on it.
    command: list[str | Path] = ["cat", *tmp_path.glob("feedback.db*")]
    content = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    assert [name for name in fields if inputs[name] in content] == ["left"]


def test_delete_in_a_file_of_another_user_is_refused(
    run: Run, store: FeedbackStore, make_record: MakeRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = make_record()
    store.save([record])
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    result = run("delete", "--request", record.request_id, "--yes")
    assert (result.exit_code, list(store.records())) == (1, [record])
    assert result.stderr == f"Error: run this as the owner of {tmp_path / 'feedback.db'}\n"


def test_stats_and_export_of_several_models(
    run: Run, store: FeedbackStore, make_record: MakeRecord, tmp_path: Path
) -> None:
    store.save([make_record(predicted="1", label=label) for label in ("1", "1", "7", None)])
    store.save([make_record(model="fashion", version=12, label="shirt", predicted="shoe")])
    headings, *lines = run("stats").stdout.splitlines()
    assert headings.split() == ["MODEL", "VERSION", "CALLER", "RECORDS", "LABELLED", "AGREEING"]
    assert [line.split() for line in lines] == [
        ["digits", "1", "–", "4", "3", "2", "(66.7%)"],
        ["fashion", "12", "–", "1", "1", "0", "(0.0%)"],
    ]
    result = run("export", tmp_path / "out")
    assert result.exit_code == 1
    assert "several models; choose one with --model: digits, fashion" in result.stderr
    assert run("export", tmp_path / "out", "--model", "fashion").exit_code == 0
    assert {path.parent.name for path in (tmp_path / "out").rglob("*.png")} == {"shirt"}


def test_export_leaves_out_inputs_whose_labels_differ_or_of_a_caller(
    run: Run, store: FeedbackStore, make_record: MakeRecord, tmp_path: Path
) -> None:
    honest = [make_record(caller="ann", label="1", held_out=False) for _ in range(4)]
    wrong = [
        make_record(caller="eve", label="2", held_out=False, input=record.input) for record in honest[:3]
    ]
    store.save([*honest, *wrong])
    result = run("export", tmp_path / "out")
    assert result.stdout.splitlines() == [
        "Left out: 3 (their labels differ)",
        f"{tmp_path}/out/train: 1 (1: 1)",
        f"{tmp_path}/out/held-out: 0 (none)",
    ]
    result = run("export", tmp_path / "honest", "--without-caller", "eve")
    assert result.stdout.splitlines()[0] == f"{tmp_path}/honest/train: 4 (1: 4)"
    assert "Left out" not in result.stdout


def test_commands_without_what_they_need_are_errors(run: Run, store: FeedbackStore, tmp_path: Path) -> None:
    missing = tmp_path / "missing.db"
    for arguments, status, message in (
        (("ls", "--store", f"sqlite:///{missing}"), 1, f"Error: {missing} does not exist\n"),
        (("show", "unknown"), 1, "Error: the store has no request unknown\n"),
        (("delete", "--yes"), 2, "say which: --since, --before, --model, --caller or --request"),
        *(
            (("ls", "--since", time), 2, f"'{time}' is neither an age, such as 12h or 7d, nor a date")
            for time in ("yesterday", "7y", "2026-13-01", "99999999999d")
        ),
    ):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (status, "")
        assert message in result.stderr
    assert not missing.exists()
    result = CliRunner().invoke(feedback, ["ls"], env={"DIGITS_FEEDBACK": None})
    assert result.exit_code == 2
    assert "DIGITS_FEEDBACK" in result.stderr


def _requests(result: Result) -> list[str]:
    assert result.exit_code == 0, result.stderr
    return [line.split()[2] for line in result.stdout.splitlines()[1:]]
