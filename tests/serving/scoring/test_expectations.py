"""Table of expectations, and `digits score` with one."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner
from pyarrow import parquet

from digit_core.images import to_png
from digit_serving.errors import SettingError
from digit_serving.scoring.cli import score
from digit_serving.scoring.expectations import read_expectations, unmatched, with_expectations
from digit_serving.scoring.files import LISTING
from tests.core.drawn_numbers import draw_lines
from tests.core.linear_model_server import LinearModelServer


def listing(*paths: str) -> pa.Table:
    return pa.Table.from_pylist([{"path": path, "etag": "1"} for path in paths], LISTING)


def write(folder: Path, text: str) -> str:
    path = folder / "expectations.csv"
    path.write_text(text)
    return str(path)


def test_read_expectations_keeps_texts_and_finds_paths_in_the_source(tmp_path: Path) -> None:
    file = write(tmp_path, "check,path,name,expect\n0..99,a.png,x,0042\n,../b.png,y,####\n,s3://c/d.png,,\n")
    table = read_expectations(file, "/photos/in")
    assert table["path"].to_pylist() == ["/photos/in/a.png", "/photos/b.png", "s3://c/d.png"]
    assert table["expect"].to_pylist() == ["0042", "####", None]
    assert table["check"].to_pylist() == ["0..99", None, None]
    assert unmatched(listing("/photos/b.png"), table) == ["/photos/in/a.png", "s3://c/d.png"]
    assert read_expectations(file, "s3://b/in")["path"][0].as_py() == "s3://b/in/a.png"
    parquet.write_table(pa.table({"path": ["a.png"], "expect": [42]}), tmp_path / "table.parquet")
    assert read_expectations(str(tmp_path / "table.parquet"), "/x")["expect"].to_pylist() == ["42"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,expected\na.png,####\n", "needs a column `path`, and `expect`, `check` or both"),
        ("file,expect\na.png,####\n", "needs a column `path`"),
        ("path,expect\na.png,####\n./a.png,#\n", "has two rows of './a.png'"),
        ("path,expect\na.png,12x\n", r"'a.png': expect: character 3 of the pattern"),
        ("path,expect\na.png,1,2\n", "is no CSV or Parquet file with a header"),
        ("", "is no CSV or Parquet file with a header"),
    ],
)
def test_read_expectations_invalid_table_is_refused_with_its_place(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        read_expectations(write(tmp_path, text), "/photos")


def test_read_expectations_numbers_with_a_point_are_refused(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"path": ["a.png"], "expect": [42.0]}), tmp_path / "table.parquet")
    with pytest.raises(SettingError, match="the column `expect` has numbers with a point"):
        read_expectations(str(tmp_path / "table.parquet"), "/photos")


def test_with_expectations_only_a_changed_one_changes_the_etag(tmp_path: Path) -> None:
    def etags(text: str) -> dict[str, str]:
        expectations = read_expectations(write(tmp_path, text), "/")
        rows = with_expectations(listing("/a", "/b", "/c"), expectations).to_pylist()
        return {row["path"]: row["etag"] for row in rows}

    before = etags("path,expect,check\na,####,\nb,####,luhn\n")
    after = etags("path,expect,check\na,####,\nb,####,mod11\n")
    assert (before["/a"], before["/c"]) == (after["/a"], "1")
    assert len({before["/a"], before["/b"], after["/b"], "1"}) == 4


def test_score_reads_each_picture_by_its_expectation_and_again_after_a_change(
    tmp_path: Path, server: LinearModelServer, digits: Any
) -> None:
    photos, output = tmp_path / "photos", tmp_path / "results"
    photos.mkdir()
    for name in ("a", "b", "c"):
        (photos / f"{name}.png").write_bytes(to_png(draw_lines([digits.one(4), digits.one(2)])))

    def run(text: str | None, status: int = 0) -> str:
        given = ("--expectations", write(tmp_path, text)) if text else ()
        arguments = ("--output", output, "--model-server", server.target, "--read", "--workers", 1, *given)
        result = CliRunner().invoke(score, [*map(str, (photos, *arguments))])
        assert result.exit_code == status, result.output
        return result.output

    def texts() -> dict[str, str]:
        rows = parquet.read_table(output).to_pylist()
        assert len(rows) == 3
        return {Path(row["path"]).stem: row["text"] or row["refusal"] for row in rows}

    summary = run("path,expect\na.png,42|17\nb.png,###\nmissing.png,##\n")
    assert f"Unmatched  1 of {tmp_path}/expectations.csv: {photos}/missing.png" in summary
    assert texts() == {"a": "42", "b": "unexpected", "c": "42"}
    assert "Scored     1 of 1 pictures" in run("path,expect\na.png,42|17\nb.png,#2\n")
    assert texts() == {"a": "42", "b": "42", "c": "42"}
    assert "has readings with a table of expectations; name --expectations" in run(None, status=2)
    assert f"names a picture in {photos}" in run("path,expect\nx.png,#\n", status=2)
