"""Examples of docs/examples, run as a reader runs them."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from digit_client import ModelServerClient
from digit_core.images import to_png
from tests.readme import ROOT


@pytest.mark.slow
@pytest.mark.skipif(not (find_spec("pyspark") and shutil.which("java")), reason="needs PySpark and Java")
def test_score_with_spark_answers_as_the_client(model_server: str, digits: Any, tmp_path: Path) -> None:
    folder, results = tmp_path / "pictures", tmp_path / "results"
    folder.mkdir()
    for digit in range(10):
        (folder / f"{digit}.png").write_bytes(to_png(digits.one(digit)))
    (folder / "broken.png").write_text("no image")
    script = ROOT / "docs" / "examples" / "score_with_spark.py"
    command = [sys.executable, str(script), str(folder), str(results), model_server]
    subprocess.run(command, check=True, env={**os.environ, "PYSPARK_PYTHON": sys.executable})
    rows = {row["path"]: row for row in pyarrow.parquet.read_table(results).to_pylist()}
    assert rows.pop(str(folder / "broken.png"))["error_code"] == "not_an_image"
    with ModelServerClient(model_server) as client:
        expected = [client.predict(path) for path in sorted(rows)]
    for path, prediction in zip(sorted(rows), expected, strict=True):
        row = rows[path]
        assert (row["label"], row["digit"]) == (prediction.label, prediction.digit)
        assert row["probabilities"] == pytest.approx(prediction.probabilities, abs=1e-5)
    assert len(rows) == 10
