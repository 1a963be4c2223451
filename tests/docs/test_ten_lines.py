"""The ten lines of Keras, on their page and in the notebook, run as a reader runs them."""

import re
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from tests.readme import ROOT

TUTORIALS = ROOT / "docs" / "tutorials"
LINES, OFFLINE = re.findall(
    r'^```python title="\w+.py"\n(.*?)^```',
    (TUTORIALS / "from-ten-lines.md").read_text(),
    re.MULTILINE | re.DOTALL,
)


def test_page_lines_fit_evaluate_and_predict(
    mnist_npz: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import keras

    # The sample takes the place of Keras's download.
    with np.load(mnist_npz) as sample:
        training, test = sample["x_train"][:2000], sample["x_test"]
        data = (training, sample["y_train"][:2000]), (test, sample["y_test"])
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: data)
    exec(compile(LINES, "ten_lines.py", "exec"), {})
    output = capsys.readouterr().out
    accuracy = re.search(r"^accuracy (0\.\d{4})$", output, re.MULTILINE)
    assert accuracy
    assert float(accuracy[1]) > 0.2
    assert re.search(r"^The first test image shows a \d$", output, re.MULTILINE)


def test_offline_lines_name_digits_as_the_line_that_they_replace() -> None:
    (names,) = re.findall(r"^(.*) = keras.datasets.mnist.load_data\(\)$", LINES, re.MULTILINE)
    named: dict[str, Any] = {}
    exec(compile(OFFLINE, "offline.py", "exec"), named)
    (x_train, y_train), (x_test, y_test) = eval(names, named)
    assert (x_train.shape, x_test.shape) == ((4000, 28, 28), (1000, 28, 28))
    assert (len(y_train), len(y_test)) == (4000, 1000)


def test_notebook_commits_no_error_and_no_local_path() -> None:
    text = (TUTORIALS / "ten_lines.ipynb").read_text()
    assert not re.search(r'"output_type": "error"|/home/|/root/|/tmp/', text)


@pytest.mark.e2e
def test_notebook_executed_service_answers_as_the_model(
    mnist_npz: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DIGITS_NOTEBOOK_EPOCHS", "2")
    monkeypatch.setenv("DIGITS_MNIST", str(mnist_npz))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(TUTORIALS / "ten_lines.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    (answers,) = [
        output["data"]["text/plain"]
        for cell in notebook.cells
        if cell.cell_type == "code" and "client.predict_many" in cell.source
        for output in cell.outputs
    ]
    _, expected, answered = re.findall(r"\[([\d, ]+)\]", answers)
    assert answered == expected
    assert list(tmp_path.glob("*/models/digits/1/saved_model.pb"))
