"""Examples of docs/examples, run as a reader runs them."""

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

from digit_client.images import to_png
from tests.readme import ROOT


def score_folder(folder: Path, results: Path, target: str) -> None:
    script = ROOT / "docs" / "examples" / "score_folder.py"
    command = [sys.executable, "-W", "error", str(script), str(folder), str(results), target]
    subprocess.run(command, check=True)


def test_score_folder_with_a_broken_image_scores_the_others(
    model_server: str, digits: Any, tmp_path: Path
) -> None:
    folder, results = tmp_path / "images", tmp_path / "results"
    folder.mkdir()
    for digit in range(10):
        (folder / f"{digit}.png").write_bytes(to_png(digits.one(digit)))
    (folder / "4.txt").write_text("no image")
    score_folder(folder, results, model_server)
    with (results / "part-00000.csv").open() as file:
        rows = {Path(path).name: (digit, problem) for path, digit, _, problem in csv.reader(file)}
    assert len(rows) == 11
    assert rows["4.txt"][0] == ""
    assert rows["4.txt"][1]
    assert sum(rows[f"{digit}.png"] == (str(digit), "") for digit in range(10)) >= 9


def test_score_folder_with_a_complete_partition_skips_it(digits: Any, tmp_path: Path) -> None:
    folder, results = tmp_path / "images", tmp_path / "results"
    for path in (folder / "7.png", results / "part-00000.csv"):
        path.parent.mkdir()
        path.write_bytes(to_png(digits.one(7)))
    unreachable = "127.0.0.1:1"
    score_folder(folder, results, unreachable)
    assert (results / "part-00000.csv").read_bytes() == to_png(digits.one(7))
