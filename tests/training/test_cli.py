"""Commands `digits train` and `digits export`, run in this process; with the mark e2e, as subprocesses."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import keras
import pytest
import tensorflow as tf
from click.testing import CliRunner
from keras import layers

from digit_training import cli, pipeline
from digit_training.callbacks import FitProgress
from digit_training.errors import Interrupted
from digit_training.fit import FitResult
from digit_training.quality_gate import QualityGate
from digit_training.recipes import RECIPES, Recipe
from digit_training.report import plots
from tests.processes import DIGITS

# TensorFlow 2.20's variables lack an argument of __array__ that NumPy 2 passes when Keras saves them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def read_card(version: Path) -> dict[str, Any]:
    return dict(json.loads((version / "assets.extra" / "model.json").read_text()))


@pytest.fixture
def fast_recipe(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Recipe of the perceptron without multi-step calls, which take longer to compile than these fits."""
    recipe = replace(RECIPES["perceptron"], augmented=True)
    monkeypatch.setitem(RECIPES, "perceptron", recipe)
    return recipe


@pytest.fixture
def without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the PNG plots, which take longer than the fits."""
    monkeypatch.setattr(plots, "save_samples", Mock())
    monkeypatch.setattr(plots, "save_prediction", Mock())


def run_offline(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `digits` as a process in `folder`, without network, Keras cache and MNIST."""
    offline = {
        "DIGITS_MNIST": "",
        "KERAS_HOME": str(folder / "keras"),
        "https_proxy": "http://127.0.0.1:9",
        "COLUMNS": "100",
    }
    return subprocess.run(
        [*map(str, DIGITS), *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **offline},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.e2e
def test_train_offline_uses_the_sample_and_publishes(tmp_path: Path) -> None:
    options = ["--model", "perceptron", "--epochs", "2", "--min-accuracy", "0"]
    result = run_offline("train", *options, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0].startswith("MNIST cannot be downloaded")
    assert "4,000 training and 1,000 test digits" in lines[1]
    assert "7,960" in result.stdout
    assert lines[-1] == "Published: models/digits/1"
    assert {path.name for path in (tmp_path / "runs").glob("*/*")} == {
        "digits.png",
        "prediction.png",
        "model.keras",
        "report.html",
    }
    assert read_card(tmp_path / "models" / "digits" / "1")["data"]["offline"] is True


@pytest.mark.slow
def test_train_best_publishes_an_ensemble_of_five_networks(idx_folder: Path, tmp_path: Path) -> None:
    options = ["--recipe", "best", "--epochs", "1", "--min-accuracy", "0"]
    result = run_offline("train", *options, "--data", idx_folder, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "network 5/5, epoch 1/1" in result.stdout
    card = read_card(tmp_path / "models" / "digits" / "1")
    assert (card["model"], card["parameters"]) == ("convnet_ensemble", 5 * 135_723 - 4 * 11)
    assert card["fit"]["networks"] == 5


def test_train_recipe_of_two_networks_writes_report_and_publishes_the_ensemble(
    idx_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fast_recipe: Recipe
) -> None:
    monkeypatch.setitem(RECIPES, "best", replace(fast_recipe, networks=2))
    report, output = tmp_path / "report", tmp_path / "models"
    options = ["--recipe", "best", "--epochs", "1", "--min-accuracy", "0"]
    places = ["--data", str(idx_folder), "--report", str(report), "--output", str(output)]
    result = CliRunner().invoke(cli.train, [*options, *places])
    assert result.exit_code == 0, result.output
    assert (
        f"Data: 200 training and 100 test digits from {idx_folder} (not the original MNIST)" in result.output
    )
    assert "network 2/2, epoch 1/1 loss" in result.output
    assert result.output.splitlines()[-1] == f"Published: {output / '1'}"
    assert {path.name for path in report.iterdir()} == {
        "digits.png",
        "prediction.png",
        "model.keras",
        "report.html",
    }
    card = read_card(output / "1")
    assert (card["model"], card["parameters"]) == ("perceptron_ensemble", 2 * 7960 - 10)
    assert card["fit"]["networks"] == 2


def test_train_damaged_data_prints_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITS_MNIST", "mnist.npz")
    monkeypatch.chdir(tmp_path)
    Path("mnist.npz").write_bytes(b"PK\x03\x04 and no more")
    result = CliRunner().invoke(cli.train)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: mnist.npz is truncated or not an .npz file")
    assert len(result.stderr.splitlines()) == 1
    assert not Path("models").exists()


@pytest.mark.usefixtures("fast_recipe", "without_plots")
def test_train_below_minimum_accuracy_publishes_nothing(idx_folder: Path, tmp_path: Path) -> None:
    places = ["--data", str(idx_folder), "--output", str(tmp_path / "models"), "--report", str(tmp_path)]
    options = ["--model", "perceptron", "--epochs", "1", "--learning-rate", "1e-9"]
    result = CliRunner().invoke(cli.train, [*places, *options])
    assert result.exit_code == 1
    assert "Error: not published: the accuracy" in result.stderr
    assert not (tmp_path / "models").exists()


@pytest.mark.usefixtures("fast_recipe", "without_plots")
def test_train_interrupted_writes_report_and_publishes_nothing(
    idx_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class InterruptingProgress(FitProgress):
        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            super().on_epoch_end(epoch, logs)
            signal.raise_signal(signal.SIGINT)

    # pipeline.train instead of the command, which would end this process with os._exit.
    monkeypatch.setattr(pipeline, "FitProgress", InterruptingProgress)
    report, output = tmp_path / "report", tmp_path / "models"
    with pytest.raises(Interrupted, match=r"after [12] of 20 epochs; the model is not published") as caught:
        pipeline.train(
            recipe="perceptron",
            data=idx_folder,
            output=output,
            report=report,
            seed=0,
            epochs=20,
            batch_size=None,
            learning_rate=None,
            gate=QualityGate(0, 1),
        )
    assert str(caught.value).endswith(f"digits export {report / 'model.keras'}")
    assert "Interrupted</strong> after" in (report / "report.html").read_text()
    assert (report / "model.keras").is_file()
    assert not output.exists()


def interrupt_train(mnist_npz: Path, folder: Path, after: str) -> tuple[int, str, str]:
    """Send SIGINT to `digits train` once it has printed `after`; return exit status, stdout and stderr."""
    command = [*DIGITS, "train", "--data", str(mnist_npz), "--report", "report", "--epochs", "20"]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        output = ""
        while after not in output:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            output += line
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
        return process.returncode, output + rest, errors


@pytest.mark.e2e
def test_train_ctrl_c_leaves_a_model_that_export_publishes(mnist_npz: Path, tmp_path: Path) -> None:
    status, output, errors = interrupt_train(mnist_npz, tmp_path, after="epoch  2/20")
    assert status == 130
    assert "Test accuracy: " in output
    assert "of 20 epochs; the model is not published" in errors
    assert len(errors.strip().splitlines()) == 1
    assert "Report: report/report.html" in output
    assert "Interrupted</strong> after" in (tmp_path / "report" / "report.html").read_text()
    assert not (tmp_path / "models").exists()
    command = errors.partition("as it is: digits ")[2].split()
    assert command == ["export", "report/model.keras"]
    assert run_offline(*command, "--data", mnist_npz, folder=tmp_path).returncode == 0
    assert (tmp_path / "models" / "digits" / "1").is_dir()


@pytest.mark.e2e
def test_train_ctrl_c_in_first_epoch_saves_no_model(mnist_npz: Path, tmp_path: Path) -> None:
    status, _, errors = interrupt_train(mnist_npz, tmp_path, after="Trainable params")
    assert (status, errors.strip()) == (
        130,
        "Interrupted before the end of the first epoch; no model is saved.",
    )
    assert not (tmp_path / "report" / "model.keras").exists()


def test_train_if_needed_with_published_version_does_nothing(tmp_path: Path) -> None:
    (tmp_path / "3").mkdir()
    result = CliRunner().invoke(cli.train, ["--if-needed", "--output", str(tmp_path)])
    assert result.exit_code == 0
    assert result.output == f"Nothing to train: {tmp_path / '3'} is already published.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["3"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model", "resnet"],
        ["--recipe", "perceptron"],
        ["--epochs", "0"],
        ["--learning-rate", "0"],
        ["--min-accuracy", "2"],
        ["x"],
    ],
)
def test_train_invalid_usage_exits_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(cli.train, arguments).exit_code == 2


def test_export_publishes_a_model_fitted_elsewhere(
    fitted: FitResult, mnist_npz: Path, tmp_path: Path
) -> None:
    file, output = tmp_path / "mine.keras", tmp_path / "models"
    image = keras.Input((28, 28, 1))
    keras.Model(image, fitted.model(layers.Flatten()(image)), name="mine").save(file)
    result = CliRunner().invoke(
        cli.export, [str(file), "--data", str(mnist_npz), "--output", str(output), "--min-accuracy", "0.5"]
    )
    assert result.exit_code == 0, result.output
    assert f"Published: {output / '1'}" in result.output
    card = read_card(output / "1")
    assert (card["model"], card["parameters"], card["fit"]) == ("mine", 7960, None)


def test_export_of_two_outputs_keeps_is_digit(refusing: FitResult, mnist_npz: Path, tmp_path: Path) -> None:
    file, output = tmp_path / "model.keras", tmp_path / "models"
    refusing.model.save(file)
    result = CliRunner().invoke(
        cli.export, [str(file), "--data", str(mnist_npz), "--output", str(output), "--min-accuracy", "0.5"]
    )
    assert result.exit_code == 0, result.output
    assert re.search(r"Refused as no digit: \d+\.\d\d% of the test digits, \d+% of", result.output)
    outputs = tf.saved_model.load(str(output / "1")).signatures["images"].structured_outputs
    assert set(outputs) == {"probabilities", "is_digit"}
    assert read_card(output / "1")["is_digit"]["threshold"] is None


def test_export_worse_than_the_served_version_is_refused(
    fitted: FitResult, mnist_npz: Path, tmp_path: Path
) -> None:
    good, bad, output = tmp_path / "good.keras", tmp_path / "bad.keras", tmp_path / "models"
    fitted.model.save(good)
    worse = keras.models.clone_model(fitted.model)
    # A large negative bias: the model never answers 7.
    *weights, biases = (weight.copy() for weight in fitted.model.get_weights())
    biases[7] = -100
    worse.set_weights([*weights, biases])
    worse.save(bad)

    def export(file: Path, *options: str) -> tuple[int, str]:
        places = ["--data", str(mnist_npz), "--output", str(output), "--min-accuracy", "0.5"]
        result = CliRunner().invoke(cli.export, [str(file), *places, *options])
        return result.exit_code, result.output

    assert export(good)[0] == 0
    status, printed = export(bad)
    assert status == 1
    accuracy = read_card(output / "1")["accuracy"]
    assert f"Accuracy of {output / '1'} on the same digits: {accuracy:.4f}" in printed
    assert f"of {output / '1'} (see --max-regression and --force)" in printed
    assert export(bad, "--max-regression", "0.3")[0] == 0
    # The newest version, 2, is equally bad; the stable version below is better.
    assert export(bad)[0] == 0
    (output / "models.config").write_text(
        'model_config_list { config { name: "digits" version_labels { key: "stable" value: 1 } } }'
    )
    assert export(bad)[0] == 1
    assert export(bad, "--force")[0] == 0
    assert {path.name for path in output.glob("[0-9]*")} == {"1", "2", "3", "4"}
    shutil.rmtree(output / "1" / "variables")
    status, printed = export(bad)
    assert status == 0
    assert f"No comparison with the served version: {output / '1'} cannot be loaded" in printed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "mine.keras does not exist"),
        (b"no model", "mine.keras is not a model that Keras can load"),
    ],
)
def test_export_missing_or_damaged_file_names_the_file(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = tmp_path / "mine.keras"
    if content:
        file.write_bytes(content)
    result = CliRunner().invoke(cli.export, [str(file), "--output", str(tmp_path / "models")])
    assert result.exit_code == 1
    assert message in result.stderr


def test_export_model_of_26_classes_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "letters.keras"
    keras.Sequential([keras.Input((784,)), layers.Dense(26, activation="softmax")]).save(file)
    result = CliRunner().invoke(cli.export, [str(file), "--output", str(tmp_path / "models")])
    assert result.exit_code == 1
    assert result.stderr == f"Error: {file}: the model answers [n, 26], not [n, 10]\n"


def test_cli_import_loads_no_tensorflow() -> None:
    code = (
        "import sys, digit_training.cli; sys.exit(bool({'tensorflow', 'keras', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
