"""Refusals of `digits score`, which come before it starts workers, with a model server in this process."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pyarrow import parquet

from digit_core.artifact.models_folder import ModelsFolder
from digit_core.images import to_png
from digit_serving.scoring.cli import score
from digit_serving.scoring.files import list_images
from digit_serving.scoring.rows import ResultsFolder, Run
from digit_serving.scoring.scorer import Scorer
from tests.core.artifact.folders import write_files
from tests.core.linear_model_server import LinearModelServer
from tests.processes import free_port


@pytest.fixture
def photos(tmp_path: Path, digits: Any) -> Path:
    (tmp_path / "photos").mkdir()
    for label in range(3):
        (tmp_path / "photos" / f"{label}.png").write_bytes(to_png(digits.one(label)))
    return tmp_path / "photos"


@pytest.fixture
def output(tmp_path: Path, photos: Path, server: LinearModelServer) -> Path:
    """Complete results of the photos, by version 1."""
    write_results(tmp_path / "results", Run(str(photos), "digits", 1, False), server)
    return tmp_path / "results"


def write_results(folder: Path, run: Run, server: LinearModelServer) -> None:
    results = ResultsFolder(str(folder))
    results.write_run(run)
    images, _ = list_images(run.source)
    results.write(Scorer(run.source, server.target, run.model, run.version, read=run.read)(images))


def run(*arguments: object, status: int) -> str:
    """Run the command; return its standard output after success, else standard error."""
    result = CliRunner().invoke(score, [*map(str, arguments)])
    assert result.exit_code == status, result.output
    # Lines that end with an ellipsis say what takes long.
    errors = [line for line in result.stderr.splitlines(keepends=True) if not line.endswith("...\n")]
    return "".join(errors) if status else result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--version", 1, "--version-label", "stable"), "mutually exclusive: give one of them"),
        (("--models", "m", "--model-server", "127.0.0.1:1"), "mutually exclusive: give one of them"),
        (("--ray", "auto"), "--ray needs --model-server"),
        (("--read", "--expect", "@missing.txt"), "'--expect': @missing.txt can't be read: No such file"),
    ],
)
def test_score_contradictory_options_are_refused(options: tuple[object, ...], message: str) -> None:
    assert message in run("photos", "--output", "results", *options, status=2)


def test_score_names_the_address_without_a_model_server_and_the_way_out(tmp_path: Path) -> None:
    target = f"127.0.0.1:{free_port()}"
    said = run(tmp_path, "--output", tmp_path / "results", "--model-server", target, status=1)
    way_out = "start it, e.g. by `digits up`, or name another address"
    assert said == f"Error: the model server at {target} does not answer (Connection refused): {way_out}\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--expect", "####"), "--expect needs --read, which reads numbers"),
        (("--turn",), "--turn needs --read, which reads numbers"),
        (("--read", "--expect", "##x"), "character 3 of the pattern"),
        (("--read", "--check", "crc"), "the check must be one of luhn"),
    ],
)
def test_score_options_that_expect_no_number_are_refused(
    photos: Path, server: LinearModelServer, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    target = ("--output", tmp_path / "new", "--model-server", server.target)
    assert message in run(photos, *target, *options, status=2)
    assert not (tmp_path / "new").exists()


def test_score_complete_results_start_nothing(output: Path, photos: Path, server: LinearModelServer) -> None:
    arguments = (photos, "--output", output, "--model-server", server.target)
    (photos / "1.png").unlink()
    for name in ("a.svg", "b.svg", "notes.txt"):
        (photos / name).touch()
    result = CliRunner().invoke(score, [*map(str, arguments)])
    summary = result.stdout
    assert (result.exit_code, result.stderr) == (0, f"Listing {photos} ...\n")
    assert "Skipped    2 that had a row" in summary
    assert "Left out   3 files without an image's suffix: 2 .svg, 1 .txt" in summary
    assert "Removed    1 that are gone" in summary
    assert "(digits, version 1)" in summary
    assert parquet.read_table(output).num_rows == 2
    before = sorted(output.iterdir())
    for path in photos.glob("*.png"):
        path.unlink()
    error = run(*arguments, status=1)
    assert error == f"Error: there is no image in {photos}, but other files: 2 .svg, 1 .txt\n"
    assert sorted(output.iterdir()) == before


@pytest.mark.parametrize("option", ["--version=2", "--model=flowers", "--read", "more"])
def test_score_other_results_need_another_folder(
    output: Path, photos: Path, server: LinearModelServer, option: str
) -> None:
    source, options = (photos / option, []) if option == "more" else (photos, [option])
    error = run(source, "--output", output, "--model-server", server.target, *options, status=2)
    assert "use another folder" in error


def test_score_readings_of_another_expectation_need_another_folder(
    photos: Path, server: LinearModelServer, tmp_path: Path
) -> None:
    def score_again(expected: Run, *options: str, status: int = 2) -> str:
        output = tmp_path / "results"
        write_results(output, expected, server)
        return run(photos, "--output", output, "--model-server", server.target, *options, status=status)

    pattern = Run(str(photos), "digits", 1, True, {"expect": "####", "check": "luhn"})
    assert "Skipped    3" in score_again(pattern, "--expect", "####", status=0)
    assert "has results with expect ####, not #####" in score_again(pattern, "--expect", "#####")
    assert "has results with check luhn, not mod11" in score_again(pattern, "--check", "mod11")
    numbers, others = tmp_path / "numbers.txt", tmp_path / "others.txt"
    numbers.write_text("1031\n1024\n1031\n")
    others.write_text("1031\n1025\n")
    known = {"numbers": 2, "sha256": "b62c5b80eeb57ca3"}
    listed = Run(str(photos), "digits", 1, True, {"expect": known})
    assert "Skipped    3" in score_again(listed, "--expect", f"@{numbers}", status=0)
    assert "has results with expect {'numbers': 2, 'sha256': 'b62c5b80eeb57ca3'}, not " in score_again(
        listed, "--expect", f"@{others}"
    )
    assert "has readings of a list of 2 numbers; name it with --expect" in score_again(listed)


def test_score_form_is_named_again_and_has_no_table_beside_it(
    photos: Path, server: LinearModelServer, tmp_path: Path
) -> None:
    form, other = tmp_path / "form.toml", tmp_path / "other.toml"
    form.write_text("[left]\nbox = [0, 0, 14, 28]\n[right]\nbox = [14, 0, 14, 28]\n")
    other.write_text("[left]\nbox = [0, 0, 14, 28]\n[right]\nbox = [15, 0, 13, 28]\n")
    table = tmp_path / "table.csv"
    table.write_text("path,expect\n0.png,#\n")
    base = (photos, "--output", tmp_path / "results", "--model-server", server.target)
    printed = run(*base, "--read", "--form", form, "--workers", 1, "--doubtful", 100, status=0)
    assert "Scored     6 of 6 fields" in printed
    header, *_ = (tmp_path / "results" / "_doubtful.csv").read_text().splitlines()
    assert header == '"path","text","confidence","candidates","field"'
    assert "Skipped    3" in run(*base, "--form", form, status=0)
    assert "has readings of a form of 2 fields; name it with --form" in run(*base, status=2)
    assert "has results with form {'fields': 2, 'sha256': " in run(*base, "--form", other, status=2)
    error = run(*base, "--form", form, "--expectations", table, status=2)
    assert "each field of --form has its own expectation; leave out --expectations" in error
    other.write_text("[left]\nbox = [0, 0, 14, 28]\nexpekt = '#'\n")
    assert "form.left.expekt: there is no such option; did you mean `expect`?" in run(
        *base, "--form", other, status=2
    )


def test_score_that_can_not_start_is_one_sentence_and_writes_nothing(
    photos: Path, server: LinearModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--output", tmp_path / "new", "--model-server", server.target)
    assert "Servable not found" in run(photos, *options, "--version", 9, status=1)
    error = run(tmp_path / "none", *options, status=1)
    assert error == f"Error: [Errno 2] No such file or directory: '{tmp_path / 'none'}'\n"
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1", "nowhere"):
        error = run(photos, *options, "--ray", address, status=1)
        assert error.startswith(f"Error: there is no Ray cluster at {address}: ")
        assert error.count("\n") == 1
    monkeypatch.setitem(sys.modules, "ray", None)
    error = run(photos, *options, "--ray", "127.0.0.1:1", status=1)
    assert error.endswith("pip install 'digits[ray]', or '.[ray]' in a clone\n")
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("full_disk")
def test_score_on_a_full_disk_starts_nothing(photos: Path, tmp_path: Path) -> None:
    error = run(photos, "--output", tmp_path / "new", "--models", tmp_path / "none", status=1)
    assert error == f"Error: {tmp_path}/new can't be written: No space left on device\n"


def test_score_whose_model_server_ends_quotes_its_last_line(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = tmp_path / "bin" / "tensorflow_model_server"
    server.parent.mkdir()
    server.write_text("#!/bin/sh\necho starting\necho no memory >&2\nexit 3\n")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", f"{server.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("DIGITS_MODEL_PUBLIC_KEY", raising=False)
    folder = ModelsFolder(tmp_path / "models", verify=lambda _: None)
    folder.publish("digits", write_files)
    error = run(photos, "--output", tmp_path / "new", "--models", folder.root, status=1)
    assert error == "Error: model server ended with status 3: no memory\n"


def test_score_version_that_is_no_longer_served_is_an_error(output: Path, photos: Path, digits: Any) -> None:
    (photos / "1.png").write_bytes(b"changed")
    with LinearModelServer(digits.images[:500], digits.labels[:500]) as server:
        server.publish(digits.images[:500], digits.labels[:500])
        error = run(photos, "--output", output, "--model-server", server.target, status=1)
    assert "Servable not found" in error


def test_score_model_or_version_that_no_folder_has_is_an_error(photos: Path, tmp_path: Path) -> None:
    folder = ModelsFolder(tmp_path / "models", verify=lambda _: None)
    arguments = (photos, "--output", tmp_path / "new", "--models", folder.root)
    assert "digits train" in run(*arguments, status=1)
    folder.publish("digits", lambda _: None)
    for option, message in (
        (("--version", 5), "version 5 does not exist"),
        (("--version-label", "canary"), "no version of digits has the label canary; see `digits models ls`"),
        (("--model", "flowers"), "flowers"),
    ):
        assert message in run(*arguments, *option, status=1)
    folder.publish("colors", lambda _: None)
    assert "choose one with --model" in run(*arguments, status=1)
