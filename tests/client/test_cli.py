"""Commands `digits predict` and `digits read`: their arguments, output and exit status."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from digit_client import Prediction, _cli
from digit_client.images import decode, to_png
from tests.client.faulty_server import FaultyServer, failure, prediction, problem, read_success, success

PROBABILITIES = (0.0, 0.0, 0.25, 0.75, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
THREE = Prediction(3, 0.75, PROBABILITIES, tuple("0123456789"), 1)
FLOWERS: dict[str, Any] = {
    "name": "flowers",
    "version": 4,
    "labels": ["daisy", "iris", "lily", "rose", "sunflower", "tulip"],
}
ROSE = [0.0, 0.125, 0.0, 0.75, 0.0, 0.125]


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as server:
        server.responses = [success]
        yield server


@pytest.fixture
def predict(server: FaultyServer) -> Callable[..., Result]:
    """Function that runs `digits predict` in this process, with `server` as the gateway."""
    return lambda *arguments: CliRunner().invoke(
        _cli.predict, [*map(str, arguments)], env={"DIGITS_URL": server.url}
    )


@pytest.fixture
def read(server: FaultyServer) -> Callable[..., Result]:
    """Function that runs `digits read` in this process, with `server` as the gateway."""
    server.responses = [read_success]
    return lambda *arguments: CliRunner().invoke(
        _cli.read, [*map(str, arguments)], env={"DIGITS_URL": server.url}
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder with two images and a text file."""
    for name in ("b.png", "a.JPG", "notes.txt"):
        (tmp_path / name).write_bytes(b"content")
    return tmp_path


def test_format_chart_draws_bar_for_each_digit() -> None:
    headline, *bars = _cli.format_chart("three.png", THREE).splitlines()
    assert headline == "three.png: 3 (75.0%)"
    assert [bar.count("█") for bar in bars] == [0, 0, 6, 18, 0, 0, 0, 0, 0, 0]
    assert bars[3].endswith(" 75.0%")
    assert len({len(bar) for bar in bars}) == 1


def test_format_line_shows_digit_probability_and_bars() -> None:
    assert _cli.format_line("three.png", THREE) == "3   75.0%  ▁▁▃▇▁▁▁▁▁▁  three.png"


def test_format_chart_of_other_labels_draws_bars_of_five_best() -> None:
    rose = Prediction(3, 0.75, tuple(ROSE), tuple(FLOWERS["labels"]), 4)
    headline, *bars = _cli.format_chart("rose.jpg", rose).splitlines()
    assert headline == "rose.jpg: rose (75.0%)"
    assert [bar.split()[0] for bar in bars] == ["rose", "iris", "tulip", "daisy", "lily"]
    assert [bar.count("█") for bar in bars] == [18, 3, 3, 0, 0]
    assert bars[0].startswith("  rose  █")
    assert len({len(bar) for bar in bars}) == 1


@pytest.mark.parametrize(("classes", "bars"), [(2, ["█▁"]), (10, ["█▁▁▁▁▁▁▁▁▁"]), (11, []), (1000, [])])
def test_format_line_of_many_classes_has_no_bars(classes: int, bars: list[str]) -> None:
    labels = tuple(f"label-{number}" for number in range(classes))
    probabilities = (1.0,) + (0.0,) * (classes - 1)
    line = _cli.format_line("a.png", Prediction(0, 0.971, probabilities, labels, 1))
    assert line.split() == ["label-0", "97.1%", *bars, "a.png"]


def test_format_line_aligns_labels() -> None:
    labels = ("rose", "sunflower")
    lines = [_cli.format_line("a.png", Prediction(index, 0.5, (0.5, 0.5), labels, 1)) for index in range(2)]
    assert lines == ["rose        50.0%  ▅▅  a.png", "sunflower   50.0%  ▅▅  a.png"]


def test_predict_one_file_prints_chart(predict: Callable[..., Result], folder: Path) -> None:
    result = predict(folder / "b.png")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{folder / 'b.png'}: 0 (100.0%)\n")
    assert len(result.stdout.splitlines()) == 11


@pytest.mark.parametrize("pattern", ["", "*.[Jp]*"])
def test_predict_folder_or_pattern_prints_sorted_lines(
    predict: Callable[..., Result], folder: Path, pattern: str
) -> None:
    result = predict(folder / pattern)
    assert result.exit_code == 0
    assert [Path(line.split()[-1]).name for line in result.stdout.splitlines()] == ["a.JPG", "b.png"]


def test_predict_json_prints_object_for_each_image(predict: Callable[..., Result], folder: Path) -> None:
    result = predict(folder, "--json")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [Path(record["image"]).name for record in records] == ["a.JPG", "b.png"]
    record = records[0]
    assert (record["label"], record["digit"], record["index"], record["confidence"]) == ("0", 0, 0, 1.0)
    assert (record["model_version"], record["is_digit"]) == (1, None)
    assert dict(zip(record["labels"], record["probabilities"], strict=True))["0"] == 1.0


def test_predict_json_of_other_labels_has_no_digit(
    predict: Callable[..., Result], server: FaultyServer, folder: Path
) -> None:
    server.responses = [prediction(FLOWERS, ROSE)]
    record = json.loads(predict(folder / "b.png", "--json").stdout)
    assert (record["label"], record["index"], record["model_version"]) == ("rose", 3, 4)
    assert record["labels"] == FLOWERS["labels"]
    assert record["probabilities"] == ROSE
    assert "digit" not in record


@pytest.mark.parametrize("model", ["flowers", None])
def test_predict_model_is_asked_of_gateway(
    predict: Callable[..., Result], server: FaultyServer, folder: Path, model: str | None
) -> None:
    server.responses = [prediction(FLOWERS, ROSE)]
    result = predict(folder / "b.png", *(["--model", model] if model else []))
    assert result.stdout.startswith(f"{folder / 'b.png'}: rose (75.0%)\n")
    assert len(result.stdout.splitlines()) == 6
    assert server.queries == [{"model": model} if model else {}]


def test_predict_failing_image_continues_and_exits_1(
    predict: Callable[..., Result], server: FaultyServer, folder: Path
) -> None:
    server.responses = [failure(422), success]
    result = predict(folder)
    assert result.exit_code == 1
    assert f"{folder / 'a.JPG'}: the service answered with 422" in result.stderr
    assert result.stdout.endswith("b.png\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing.png",), "no image at 'missing.png'"),
        ((".", "--version", "1", "--label", "stable"), "mutually exclusive"),
        ((".", "--timeout", "0"), "--timeout"),
    ],
)
def test_predict_invalid_arguments_exits_2(
    predict: Callable[..., Result], arguments: tuple[str, ...], message: str
) -> None:
    result = predict(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_read_one_file_prints_lines(read: Callable[..., Result], folder: Path) -> None:
    result = read(folder / "b.png")
    assert (result.exit_code, result.stdout) == (0, "12\n3\n")


def test_read_folder_prints_name_before_each_line(read: Callable[..., Result], folder: Path) -> None:
    result = read(folder)
    assert result.exit_code == 0
    lines = [(Path(name).name, text) for name, text in map(str.split, result.stdout.splitlines())]
    assert lines == [("a.JPG:", "12"), ("a.JPG:", "3"), ("b.png:", "12"), ("b.png:", "3")]


def test_read_json_prints_object_for_each_image(read: Callable[..., Result], folder: Path) -> None:
    records = [json.loads(line) for line in read(folder, "--json").stdout.splitlines()]
    assert [Path(record["image"]).name for record in records] == ["a.JPG", "b.png"]
    assert {record["text"] for record in records} == {"12\n3"}
    (first, _), (second,) = (line["digits"] for line in records[0]["lines"])
    assert (first["digit"], first["box"]) == (1, [5, 5, 20, 30])
    assert (second["digit"], second["box"]) == (3, [5, 75, 20, 30])


def test_read_failing_image_continues_and_exits_1(
    read: Callable[..., Result], server: FaultyServer, folder: Path
) -> None:
    server.responses = [failure(422), read_success]
    result = read(folder)
    assert result.exit_code == 1
    assert f"{folder / 'a.JPG'}: the service answered with 422" in result.stderr
    assert len(result.stdout.splitlines()) == 2


def test_read_model_without_numbers_prints_sentence(
    read: Callable[..., Result], server: FaultyServer, folder: Path
) -> None:
    server.responses = [problem(404, "reading_not_supported", "The model flowers reads no numbers.")]
    result = read(folder / "b.png", "--model", "flowers")
    assert result.exit_code == 1
    assert result.stderr == f"{folder / 'b.png'}: The model flowers reads no numbers.\n"
    assert server.queries == [{"model": "flowers"}]


def test_read_show_writes_picture_with_boxes(read: Callable[..., Result], tmp_path: Path) -> None:
    source, target = tmp_path / "number.png", tmp_path / "shown.png"
    source.write_bytes(to_png(np.full((120, 60), 255, np.uint8)))
    result = read(source, "--show", target)
    assert (result.exit_code, result.stdout) == (0, "12\n3\n")
    shown = decode(target.read_bytes())
    assert shown.shape == (120, 60, 3)
    is_drawn = (shown != 255).any(axis=2)
    for left, top in ((5, 5), (35, 5), (5, 75)):
        right, bottom = left + 20, top + 30
        assert is_drawn[top - 1 : bottom + 1, [left - 1, right]].all()
        assert not is_drawn[top:bottom, left:right].any()


@pytest.mark.parametrize("name", ["missing/shown.png", "."])
def test_read_show_unwritable_target_fails(read: Callable[..., Result], tmp_path: Path, name: str) -> None:
    source = tmp_path / "number.png"
    source.write_bytes(to_png(np.full((120, 60), 255, np.uint8)))
    result = read(source, "--show", tmp_path / name)
    assert result.exit_code in (1, 2)
    assert name.strip("./") in result.stderr


def test_read_show_with_several_images_exits_2(read: Callable[..., Result], folder: Path) -> None:
    result = read(folder, "--show", folder / "shown.png")
    assert result.exit_code == 2
    assert "--show takes one image" in result.stderr
