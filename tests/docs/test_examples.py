"""The examples, run as their readers run them."""

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

from digit_client.images import to_png

EXAMPLES = Path(__file__).parent.parent.parent / "docs" / "examples"


def score(folder: Path, results: Path, target: str) -> None:
    command = [sys.executable, "-W", "error", str(EXAMPLES / "score_folder.py"), str(folder), str(results)]
    subprocess.run([*command, target], check=True)


def test_a_folder_is_scored_and_what_is_no_image_told(model_server: str, digits: Any, tmp_path: Path) -> None:
    folder, results = tmp_path / "images", tmp_path / "results"
    folder.mkdir()
    for digit in range(10):
        (folder / f"{digit}.png").write_bytes(to_png(digits.one(digit)))
    (folder / "4.txt").write_text("no image")
    score(folder, results, model_server)
    with (results / "part-00000.csv").open() as file:
        rows = {Path(path).name: (digit, problem) for path, digit, _, problem in csv.reader(file)}
    assert len(rows) == 11
    assert rows["4.txt"][0] == ""
    assert rows["4.txt"][1]
    assert sum(rows[f"{digit}.png"] == (str(digit), "") for digit in range(10)) >= 9


def test_a_partition_that_is_done_is_not_done_again(digits: Any, tmp_path: Path) -> None:
    folder, results = tmp_path / "images", tmp_path / "results"
    for path in (folder / "7.png", results / "part-00000.csv"):
        path.parent.mkdir()
        path.write_bytes(to_png(digits.one(7)))
    # Nobody is there to ask.
    score(folder, results, "127.0.0.1:1")
    assert (results / "part-00000.csv").read_bytes() == to_png(digits.one(7))
