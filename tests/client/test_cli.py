"""Commands `digits predict` and `digits read`: their arguments, output and exit status."""

import csv
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from click.testing import CliRunner, Result
from werkzeug.wrappers import Request, Response

from digit_client import Prediction, _cli, _formats
from digit_client._cli import main
from digit_core.artifact.addresses import Addresses, recorded
from digit_core.images import decode, to_png
from tests.client.faulty_server import DIGITS, FaultyServer, prediction, problem, read_success

PROBABILITIES = (0.0, 0.0, 0.25, 0.75, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
THREE = Prediction(3, 0.75, PROBABILITIES, tuple("0123456789"), 1)
FLOWERS: dict[str, Any] = {
    "name": "flowers",
    "version": 4,
    "labels": ["daisy", "iris", "lily", "rose", "sunflower", "tulip"],
}
ROSE = [0.0, 0.125, 0.0, 0.75, 0.0, 0.125]


REFUSALS: dict[bytes, dict[str, Any]] = {
    b"none": {"label": None, "digit": None, "refusal": "no_digit", "is_digit": 0.25},
    b"several": {"label": None, "digit": None, "refusal": "several_digits", "count": 3, "box": [1, 2, 3, 4]},
}
"""Contents of refused images, and what the gateway answers."""


class ContentServer(FaultyServer):
    """Gateway of images that are text: a digit, a refusal, or broken.

    Its `/v1/read` finds the lines 12 and 3 on a digit.

    Contents in `held` are answered once `release` is set. `responses`, if any, replace the answers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held: set[bytes] = set()
        self.release = threading.Event()
        self.authorizations: list[str | None] = []
        self.bodies: list[bytes] = []

    def respond(self, request: Request) -> Response:
        self.authorizations.append(request.headers.get("Authorization"))
        self.bodies.append(request.get_data())
        if self.responses:
            return super().respond(request)
        contents = [part.read() for part in request.files.getlist("image")]
        if self.held.intersection(contents):
            assert self.release.wait(10)
        key = "readings" if request.path == "/v1/read" else "predictions"
        items = [self._item(key, text) for text in contents]
        return Response(json.dumps({"model": DIGITS, key: items, "request_id": "id"}))

    def _item(self, key: str, text: bytes) -> Any:
        if text not in REFUSALS and not text.isdigit():
            return {"error": {"code": "not_an_image", "detail": "The data is no image."}}
        if key == "readings" and text in REFUSALS:
            return {"text": "", "confidence": 0, "lines": [], "refusal": "no_digit"}
        digit = 0 if text in REFUSALS else int(text)
        predicted = prediction(DIGITS, np.eye(10).tolist()[digit], **REFUSALS.get(text, {}))
        response = read_success() if key == "readings" else predicted()
        return json.loads(response.get_data())[key][0]


@pytest.fixture
def server() -> Iterator[ContentServer]:
    with ContentServer() as server:
        yield server


Run = Callable[..., Result]
"""Function that runs a command in this process, with `server` as the gateway."""


@pytest.fixture
def run(server: ContentServer) -> Run:
    def run(*arguments: object, **options: Any) -> Result:
        return CliRunner(env={"DIGITS_URL": server.url}).invoke(main, [*map(str, arguments)], **options)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder with two images, of a seven and a four, a text file, and a subfolder with an image."""
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    for name, content in (("b.png", "4"), ("a.JPG", "7"), ("notes.txt", "text"), ("more/c.png", "1")):
        (folder / name).write_text(content)
    return folder


@pytest.fixture
def large_folder(tmp_path: Path) -> Path:
    """Folder with the images of two requests, the first ones of a one, the others of a two."""
    for number in range(100):
        (tmp_path / f"{number:03}.png").write_text("1" if number < 64 else "2")
    return tmp_path


FLOWER = Prediction(0, 0.5, (0.5, 0.5), ("rose", "sunflower"), 1)


@pytest.mark.parametrize(
    ("prediction", "line"),
    [
        (THREE, "3   75.0%  ▁▁▃▇▁▁▁▁▁▁  a.png"),
        (FLOWER, "rose        50.0%  ▅▅  a.png"),
        (replace(FLOWER, index=1), "sunflower   50.0%  ▅▅  a.png"),
        (replace(FLOWER, refusal="unsure"), "-           50.0%  ▅▅  a.png: unsure; most like rose"),
        (replace(FLOWER, refusal="blurred"), "-           50.0%  ▅▅  a.png: blurred; most like rose"),
        (replace(FLOWER, confidence=0.99949), "rose        99.9%  ▅▅  a.png"),
        (replace(FLOWER, confidence=0.99999), "rose        99.9%  ▅▅  a.png"),
        (replace(FLOWER, confidence=1.0), "rose       100.0%  ▅▅  a.png"),
        (replace(THREE, labels=(*THREE.labels, "10")), "3    75.0%  a.png"),
    ],
)
def test_format_line_shows_label_confidence_and_bars_of_few_classes(
    prediction: Prediction, line: str
) -> None:
    assert _formats.format_line("a.png", prediction) == line


def test_format_chart_has_bars_of_all_digits_or_of_the_five_best_labels() -> None:
    headline, *bars = _formats.format_chart("a.png", THREE).splitlines()
    assert (headline, len(bars)) == ("a.png: 3 (75.0%)", 10)
    assert bars[2:4] == [f"  2 {'█' * 6:25}  25.0%", f"  3 {'█' * 18:25}  75.0%"]
    # Probabilities are float32, the confidence is not.
    rose = Prediction(3, 0.7499999, tuple(ROSE), tuple(FLOWERS["labels"]), 4)
    headline, *bars = _formats.format_chart("a.png", rose).splitlines()
    assert headline == "a.png: rose (75.0%)"
    assert [bar.split()[0] for bar in bars] == ["rose", "iris", "tulip", "daisy", "lily"]
    assert [bar.count("█") for bar in bars] == [18, 3, 3, 0, 0]
    assert len({len(bar) for bar in bars}) == 1


@pytest.mark.parametrize(("named", "text"), [(("rose", "iris"), "rose, iris"), ((), "-")])
def test_format_of_multi_label_model_names_labels(named: tuple[str, ...], text: str) -> None:
    prediction = Prediction(1, 0.75, (0.75, 0.6), ("rose", "iris"), 1, predicted_labels=named)
    assert _formats.format_line("a.png", prediction).startswith(f"{text:<4}   75.0%")
    cell = f'"{text}"' if named else ""
    assert _formats.format_prediction_row("a.png", prediction).startswith(f"a.png,{cell},,iris,0.75,")
    headline = f"a.png: {text if named else 'none'} (75.0%)\n"
    assert _formats.format_chart("a.png", prediction).startswith(headline)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ([""], ["7 a.JPG", "4 b.png"]),
        (["*.[Jp]*"], ["7 a.JPG", "4 b.png"]),
        (["", "-r"], ["7 a.JPG", "4 b.png", "1 more/c.png"]),
    ],
    ids=["folder", "pattern", "recursive"],
)
def test_predict_folder_or_pattern_prints_sorted_lines(
    run: Run, folder: Path, arguments: list[str], names: list[str]
) -> None:
    result = run("predict", folder / arguments[0], *arguments[1:])
    assert result.exit_code == 0
    found = [(line[0], Path(line.split()[-1]).relative_to(folder)) for line in result.stdout.splitlines()]
    assert [f"{label} {path}" for label, path in found] == names


def test_predict_unreadable_folder_prints_path(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> NoReturn:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    result = run("predict", folder)
    assert result.exit_code == 1
    assert str(folder) in result.stderr
    assert "Permission denied" in result.stderr


def test_predict_dash_reads_standard_input(run: Run, folder: Path) -> None:
    assert run("predict", "-", input=b"7").stdout.startswith("-: 7 (100.0%)\n")
    result = run("predict", folder / "b.png", "-", input=b"7")
    assert [line.split()[-1] for line in result.stdout.splitlines()] == [str(folder / "b.png"), "-"]


def test_options_reach_the_gateway(run: Run, server: ContentServer, folder: Path) -> None:
    server.responses = [prediction(FLOWERS, ROSE)]
    options = ("--model", "flowers", "--version-label", "stable", "--min-is-digit", "0.2")
    result = run("predict", folder / "b.png", *options)
    assert result.stdout.startswith(f"{folder / 'b.png'}: rose (75.0%)\n")
    assert len(result.stdout.splitlines()) == 6
    assert server.queries == [{"model": "flowers", "label": "stable", "min_is_digit": "0.2"}]


def test_read_options_reach_the_gateway(
    run: Run, server: ContentServer, folder: Path, tmp_path: Path
) -> None:
    server.responses = [read_success]
    given = ("--expect", "##|#", "--check", "luhn", "--min-confidence", "0.9", "--box", "1,2,3,4", "--turn")
    assert run("read", folder / "b.png", *given).stdout == "12\n3\n"
    sent = {"expect": "##|#", "check": "luhn", "min_confidence": "0.9", "box": "1,2,3,4", "turn": "auto"}
    numbers = tmp_path / "numbers.txt"
    numbers.write_text("\ufeff12\n31\n\n", encoding="utf-8")
    assert run("read", folder / "b.png", "--expect", f"@{numbers}").stdout == "12\n3\n"
    assert server.queries == [sent, {}]
    assert json.loads(server.bodies[1])["expect"] == ["12", "31"]


@pytest.mark.parametrize(
    ("fields", "printed"),
    [
        ({"refusal": "unexpected"}, "{}: nothing fits; seen: 12 (61.0%), 17 (3.0%)\n"),
        ({"refusal": "no_digit", "orientation": 90}, "{}: turn the image by 90° clockwise\n"),
        ({"refusal": "blurred"}, "{}: blurred\n"),
        (
            {"refusal": "unsure", "orientation": 90},
            "{0}: unsure; seen: 12 (61.0%), 17 (3.0%)\n{0}: turn the image by 90° clockwise\n",
        ),
        (
            {"refusal": "unsure", "orientation": 90, "is_turned": True},
            "{}: unsure; seen: 12 (61.0%), 17 (3.0%)\n",
        ),
    ],
)
def test_read_refused_prints_what_was_seen(
    run: Run, server: ContentServer, folder: Path, fields: dict[str, Any], printed: str
) -> None:
    candidates = [{"text": "12", "probability": 0.61}, {"text": "17", "probability": 0.03}]
    reading = {"text": "", "confidence": 0.61, "lines": [], "candidates": candidates} | fields
    server.responses = [lambda: Response(json.dumps({"model": DIGITS, "readings": [reading]}))]
    assert run("read", folder / "b.png").stdout == printed.format(folder / "b.png")


@pytest.fixture
def mixed(folder: Path) -> Path:
    """Folder with an image of each outcome: broken, dangling, a seven, none, several."""
    (folder / "b.png").unlink()
    (folder / "a, broken.png").write_text("text")
    (folder / "a.png").symlink_to("nowhere.png")
    (folder / "none.png").write_text("none")
    (folder / "several.png").write_text("several")
    return folder


NAMES = ["a, broken.png", "a.JPG", "a.png", "none.png", "several.png"]


def test_predict_csv_has_row_for_each_image(run: Run, mixed: Path) -> None:
    result = run("predict", mixed, "--format", "csv")
    assert (result.exit_code, result.stderr) == (1, "3 read, 2 errors\n")
    first, *others = csv.reader(result.stdout.splitlines())
    assert first == [*_formats.PREDICTION_COLUMNS]
    broken, seven, dangling, none, several = ([Path(row[0]).name, *row[1:]] for row in others)
    assert broken == ["a, broken.png", *[""] * 11, "The data is no image."]
    assert seven == ["a.JPG", "7", "", "7", "1.0", *[""] * 6, "1", ""]
    assert dangling[:-1] == ["a.png", *[""] * 11]
    assert "nowhere.png" in dangling[-1] or "No such file" in dangling[-1]
    assert none == ["none.png", "", "no_digit", "0", "1.0", "0.25", *[""] * 5, "1", ""]
    assert several == ["several.png", "", "several_digits", "0", "1.0", "", "3", *"1234", "1", ""]


def test_read_csv_has_row_for_each_line(run: Run, mixed: Path) -> None:
    first, *others = csv.reader(run("read", mixed, "--format", "csv").stdout.splitlines())
    assert first == [*_formats.READING_COLUMNS]
    broken, *lines, _, none, _ = ([Path(row[0]).name, *row[1:]] for row in others)
    assert broken == ["a, broken.png", *[""] * 13, "The data is no image.", "", ""]
    assert lines == [
        ["a.JPG", "1", "12", *("5", "5", "50", "30", "0.9"), *[""] * 4, "[[28, 30, 4, 4]]", "1", "", "", ""],
        ["a.JPG", "2", "3", *("5", "75", "20", "30", "0.9"), *[""] * 5, "1", "", "", ""],
    ]
    assert none == ["none.png", *[""] * 6, "0.0", "no_digit", *[""] * 4, "1", "", "", ""]


def test_csv_columns_of_earlier_releases_keep_their_positions() -> None:
    predicted = "image label refusal best confidence is_digit count left top width height model_version error"
    read = (
        "image line text left top width height confidence refusal candidates orientation is_turned separators"
    )
    assert " ".join(_formats.PREDICTION_COLUMNS).startswith(predicted)
    assert " ".join(_formats.READING_COLUMNS).startswith(f"{read} model_version error")


def test_csv_text_that_begins_as_a_formula_is_escaped() -> None:
    labels = ("=1+1", "@rose")
    row = _formats.format_prediction_row(
        "=cmd|'/c calc'!A1.png", Prediction(0, 0.75, (0.75, 0.25), labels, 1)
    )
    assert next(csv.reader([row]))[:4] == ["'=cmd|'/c calc'!A1.png", "'=1+1", "", "'=1+1"]
    error = _formats.prediction_output("csv", is_only=True).format_error("a.png", OSError("-1"))
    assert next(csv.reader([error]))[-1] == "'-1"


def test_json_has_object_for_each_image(run: Run, mixed: Path) -> None:
    result = run("predict", mixed, "--json")
    assert (result.exit_code, result.stderr) == (1, "3 read, 2 errors\n")
    assert result.stdout == run("predict", mixed, "--format", "jsonl").stdout
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [Path(record["image"]).name for record in records] == NAMES
    broken, seven, dangling, none, several = records
    assert broken["error"] == {"code": "not_an_image", "message": "The data is no image."}
    assert dangling["error"]["code"] == "unreadable"
    assert (seven["label"], seven["refusal"], seven["request_id"]) == ("7", None, "id")
    assert (none["digit"], none["refusal"], none["is_digit"], none["index"]) == (None, "no_digit", 0.25, 0)
    assert (several["refusal"], several["count"]) == ("several_digits", 3)
    readings = [json.loads(line) for line in run("read", mixed, "--json").stdout.splitlines()]
    assert [reading.get("text") for reading in readings] == [None, "12\n3", None, "", ""]


def test_predict_table_has_line_for_each_image(run: Run, mixed: Path) -> None:
    result = run("predict", mixed)
    assert (result.exit_code, result.stderr) == (1, "3 read, 2 errors\n")
    lines = result.stdout.splitlines()
    for name, line in zip(NAMES, lines, strict=True):
        assert str(mixed / name) in line
    assert lines[0] == f"{mixed / NAMES[0]}: The data is no image."
    assert lines[3].startswith("-          ")
    assert lines[3].endswith(": no digit; most like 0")
    assert lines[4].endswith(": 3 digits, which `digits read` reads; most like 0")


def test_read_table_has_name_before_each_line(run: Run, mixed: Path) -> None:
    result = run("read", mixed)
    assert (result.exit_code, result.stderr) == (1, "3 read, 2 errors\n")
    lines = [line.removeprefix(f"{mixed}/").split(": ", 1) for line in result.stdout.splitlines()]
    names, texts = zip(*lines, strict=True)
    assert [*names] == [NAMES[0], "a.JPG", *NAMES[1:]]
    assert [*texts[:3], *texts[4:]] == ["The data is no image.", "12", "3", "no digit", "no digit"]


def test_refused_image_alone_prints_what_the_model_said_and_exits_0(run: Run, mixed: Path) -> None:
    result = run("predict", mixed / "none.png")
    assert (result.exit_code, result.stderr) == (0, "")
    headline, *bars = result.stdout.splitlines()
    assert headline == f"{mixed / 'none.png'}: no digit; most like 0"
    assert [bar.split()[-1] for bar in bars] == ["100.0%", *["0.0%"] * 9, "25.0%"]
    assert bars[-1].startswith("  is digit ")
    result = run("read", mixed / "none.png")
    assert (result.exit_code, result.stdout) == (0, f"{mixed / 'none.png'}: no digit\n")


@pytest.mark.parametrize("command", ["predict", "read"])
def test_broken_image_alone_prints_nothing_but_its_error(run: Run, command: str, mixed: Path) -> None:
    path = mixed / NAMES[0]
    result = run(command, path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"{path}: The data is no image.\n"


@pytest.mark.parametrize("code", ["unauthorized", "model_not_found", "reading_not_supported"])
def test_failure_of_service_is_printed_once_and_exits_1(
    run: Run, server: ContentServer, large_folder: Path, code: str
) -> None:
    server.responses = [problem(404, code, "The sentence.")]
    result = run("read", large_folder)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: The sentence; the address is {server.url} (DIGITS_URL)\n"


def test_predict_unreachable_service_is_printed_once_with_its_command(
    run: Run, large_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run("predict", large_folder, "--url", "http://127.0.0.1:1")
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    sentence = "Error: Nothing answers at http://127.0.0.1:1: start it with `digits up`, or give --url"
    assert line == sentence
    # Port 1 in place of 8080, on which a service may listen.
    monkeypatch.setattr(_cli, "DEFAULT_URL", "http://127.0.0.1:1")
    result = run("predict", large_folder, env={"DIGITS_URL": None, "DIGITS_MODELS": str(tmp_path)})
    assert result.stderr == f"{sentence}\n"


def test_predict_asks_the_gateway_of_digits_up_unless_a_variable_names_one(
    run: Run, server: ContentServer, folder: Path, tmp_path: Path
) -> None:
    environment = {"DIGITS_URL": None, "DIGITS_MODELS": str(tmp_path)}
    with recorded(tmp_path, Addresses(server.url, "127.0.0.1:1", "digits")):
        assert run("predict", folder / "b.png", env=environment).exit_code == 0
        server.responses = [problem(404, "model_not_found", "The sentence.")]
        result = run("predict", folder / "b.png", env=environment)
        assert result.stderr.endswith(
            f"; the address is {server.url} (that of `digits up` with {tmp_path})\n"
        )
        variable = {**environment, "DIGITS_URL": "http://127.0.0.1:1"}
        result = run("predict", folder / "b.png", env=variable)
        assert result.stderr == (
            "Error: Nothing answers at http://127.0.0.1:1 (DIGITS_URL): start it with `digits up`, or give "
            "--url\n"
        )


def test_predict_many_images_prints_in_order_of_paths(
    run: Run, server: ContentServer, large_folder: Path
) -> None:
    server.held = {b"1"}
    threading.Timer(0.2, server.release.set).start()
    result = run("predict", large_folder)
    assert (result.exit_code, result.stderr) == (0, "")
    paths = [line.split()[-1] for line in result.stdout.splitlines()]
    assert paths == sorted(map(str, large_folder.iterdir()))


def test_predict_closed_output_ends_quietly(server: ContentServer, large_folder: Path) -> None:
    with digits_process(server, large_folder) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""


def test_predict_prints_each_answer_at_once_and_interrupted_exits_130_without_waiting(
    server: ContentServer, large_folder: Path
) -> None:
    server.held = {b"2"}
    with digits_process(server, large_folder) as process:
        assert {process.stdout.readline()[0] for _ in range(64)} == {"1"}
        process.send_signal(signal.SIGINT)
        assert process.wait(8) == 130
        server.release.set()
        assert process.stderr.read() == "Stopped.\n"


def test_predict_terminal_shows_progress(server: ContentServer, large_folder: Path) -> None:
    terminal, stderr = pty.openpty()
    with digits_process(server, large_folder, stderr=stderr) as process:
        os.close(stderr)
        shown = b""
        while b"100/100" not in shown:
            shown += os.read(terminal, 4096)
        assert len(process.stdout.readlines()) == 100
        assert process.wait() == 0
    os.close(terminal)


def digits_process(server: ContentServer, folder: Path, stderr: int = subprocess.PIPE) -> Any:
    """Start `digits predict` with pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "digit_client", "predict", folder],
        env={**os.environ, "DIGITS_URL": server.url, "PYTHONUTF8": "1"},
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        encoding="utf-8",
    )


def test_predict_api_key_is_taken_from_option_or_environment(
    run: Run, server: ContentServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITS_API_KEY", "from-environment")
    run("predict", folder)
    run("predict", folder, "--api-key", "from-option")
    assert server.authorizations == ["Bearer from-environment", "Bearer from-option"]
    assert "from-environment" not in run("predict", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("predict", "missing.png"), "there is no image at 'missing.png'"),
        (("predict", "-", "--version", "1", "--version-label", "stable"), "mutually exclusive"),
        (("predict", "https://a.test/5.png"), "https://a.test/5.png is a URL: download it first"),
        (("predict", "-", "--url", "example.org"), "http:// or https://, unlike 'example.org'"),
        (("read", "-", "--expect", "##x"), "character 3 of the pattern"),
        (("read", "-", "--expect", "@missing.txt"), "'--expect': @missing.txt can't be read: No such file"),
        (("read", "-", "--expect", "####", "--check", "crc"), "the check must be one of luhn"),
        (("read", "-", "--box", "1,2,3"), "a box has four numbers"),
    ],
)
def test_invalid_arguments_exit_2(run: Run, arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.fixture
def page(server: ContentServer, tmp_path: Path) -> Path:
    """White picture, on which `server` finds the lines 12 and 3."""
    server.responses = [read_success]
    path = tmp_path / "number.png"
    path.write_bytes(to_png(np.full((120, 60), 255, np.uint8)))
    return path


@pytest.mark.parametrize("is_piped", [False, True])
def test_read_show_writes_picture_with_boxes(run: Run, page: Path, is_piped: bool) -> None:
    target = page.with_name("shown.png")
    result = run("read", "-" if is_piped else page, "--show", target, input=page.read_bytes())
    assert (result.exit_code, result.stdout) == (0, "12\n3\n")
    shown = decode(target.read_bytes())
    assert shown.shape == (120, 60, 3)
    is_drawn = (shown != 255).any(axis=2)
    for left, top in ((5, 5), (35, 5), (5, 75)):
        right, bottom = left + 20, top + 30
        assert is_drawn[top - 1 : bottom + 1, [left - 1, right]].all()
        assert not is_drawn[top:bottom, left:right].any()


def test_read_show_of_several_pictures_is_a_sheet(run: Run, page: Path) -> None:
    target = page.with_name("shown.png")
    result = run("read", page, page.with_name("missing.png"), page, "--show", target)
    assert (result.exit_code, len(result.stdout.splitlines())) == (1, 5)
    sheet = decode(target.read_bytes())
    assert sheet.shape == (2 * (360 + 24), 2 * 480, 3)
    cells = [each for row in np.split(sheet, 2) for each in np.split(row, 2, axis=1)]
    assert np.array_equal(cells[0], cells[2])
    assert [bool((cell[:360] != 255).any()) for cell in cells] == [True, False, True, False]


def test_read_show_impossible_target_fails(run: Run, page: Path, folder: Path) -> None:
    for image, target, status, message in (
        (page, page.with_name("missing") / "shown.png", 1, "missing/shown.png"),
        (page, page.parent, 2, "is a directory"),
    ):
        result = run("read", image, "--show", target)
        assert result.exit_code == status
        assert message in result.stderr
