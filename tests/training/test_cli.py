import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from click.testing import CliRunner
from keras import layers

from digit_training import cli
from digit_training.data import Dataset
from digit_training.fit import Fit
from tests.processes import DIGITS

# TensorFlow 2.20's variables know nothing of an argument that NumPy 2 passes when Keras saves them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def digits(*arguments: str | Path, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Runs the command as on a machine of its own, which reaches nothing and has no MNIST."""
    alone = {
        "DIGITS_MNIST": "",
        "KERAS_HOME": str(folder / "keras"),
        "https_proxy": "http://127.0.0.1:9",
        "COLUMNS": "100",
    }
    return subprocess.run(
        [*map(str, DIGITS), *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **alone, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def card(version: Path) -> dict[str, object]:
    text = (version / "assets.extra" / "model.json").read_text()
    return dict(json.loads(text))


def test_an_offline_machine_trains_on_the_digits_it_has(tmp_path: Path) -> None:
    result = digits("train", "--model", "perceptron", "--epochs", "2", "--min-accuracy", "0", folder=tmp_path)
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
    assert card(tmp_path / "models" / "digits" / "1")["data"]["offline"] is True  # type: ignore[index]


def test_five_networks_are_published_as_one(idx_folder: Path, tmp_path: Path) -> None:
    options = ["--recipe", "best", "--epochs", "1", "--min-accuracy", "0"]
    result = digits("train", *options, "--data", idx_folder, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "network 5/5, epoch 1/1" in result.stdout
    published = card(tmp_path / "models" / "digits" / "1")
    assert (published["model"], published["parameters"]) == ("convnet_committee", 5 * 135_594 - 4 * 10)
    assert published["fit"]["networks"] == 5  # type: ignore[index]


def test_wrong_data_is_one_plain_line(tmp_path: Path) -> None:
    (tmp_path / "mnist.npz").write_bytes(b"PK\x03\x04 and no more")
    result = digits("train", folder=tmp_path, DIGITS_MNIST="mnist.npz")
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: mnist.npz is truncated or no .npz file")
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "models").exists()


def test_a_model_below_the_bar_is_not_published(mnist_npz: Path, tmp_path: Path) -> None:
    arguments = ["--data", str(mnist_npz), "--output", str(tmp_path / "models"), "--report", str(tmp_path)]
    command = [*arguments, "--model", "perceptron", "--epochs", "1", "--learning-rate", "1e-9"]
    result = CliRunner().invoke(cli.train, command)
    assert result.exit_code == 1
    assert "Error: not published: the accuracy" in result.stderr
    assert not (tmp_path / "models").exists()


def interrupted(mnist_npz: Path, folder: Path, after: str) -> "tuple[int, str, str]":
    """Status, output and errors of a fit that gets Ctrl-C when it has printed this."""
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


def test_an_interrupted_fit_leaves_what_it_learned_and_publishes_nothing(
    mnist_npz: Path, tmp_path: Path
) -> None:
    status, output, errors = interrupted(mnist_npz, tmp_path, after="epoch  2/20")
    assert status == 130
    assert "Test accuracy: " in output
    assert "of 20 epochs, and not published" in errors
    assert len(errors.strip().splitlines()) == 1
    assert "Report: report/report.html" in output
    assert "Interrupted</strong> after" in (tmp_path / "report" / "report.html").read_text()
    assert not (tmp_path / "models").exists()
    command = errors.partition("learned: digits ")[2].split()
    assert command == ["export", "report/model.keras"]
    assert digits(*command, "--data", mnist_npz, folder=tmp_path).returncode == 0
    assert (tmp_path / "models" / "digits" / "1").is_dir()


def test_before_the_first_epoch_there_is_nothing_to_leave(mnist_npz: Path, tmp_path: Path) -> None:
    status, _, errors = interrupted(mnist_npz, tmp_path, after="Trainable params")
    assert (status, errors.strip()) == (
        130,
        "Interrupted before the first epoch had ended: nothing is kept.",
    )
    assert not (tmp_path / "report" / "model.keras").exists()


def test_if_needed_leaves_a_version_alone(tmp_path: Path) -> None:
    (tmp_path / "3").mkdir()
    result = CliRunner().invoke(cli.train, ["--if-needed", "--output", str(tmp_path)])
    assert (result.exit_code, result.output) == (0, f"Nothing to train: {tmp_path / '3'} is there.\n")


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
def test_wrong_usage(arguments: list[str]) -> None:
    assert CliRunner().invoke(cli.train, arguments).exit_code == 2


def test_a_model_fitted_elsewhere_is_published(fitted: Fit, mnist_npz: Path, tmp_path: Path) -> None:
    file, output = tmp_path / "mine.keras", tmp_path / "models"
    image = keras.Input((28, 28, 1))
    keras.Model(image, fitted.model(layers.Flatten()(image)), name="mine").save(file)
    result = CliRunner().invoke(
        cli.export, [str(file), "--data", str(mnist_npz), "--output", str(output), "--min-accuracy", "0.5"]
    )
    assert result.exit_code == 0, result.output
    assert f"Published: {output / '1'}" in result.output
    published = card(output / "1")
    assert (published["model"], published["parameters"], published["fit"]) == ("mine", 7960, None)


def test_a_model_worse_than_the_stable_one_is_not_published(
    fitted: Fit, mnist_npz: Path, tmp_path: Path
) -> None:
    good, bad, output = tmp_path / "good.keras", tmp_path / "bad.keras", tmp_path / "models"
    fitted.model.save(good)
    worse = keras.models.clone_model(fitted.model)
    # The digits are told apart as before, but for one that is taken for another.
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
    assert f"On the same digits {output / '1'} has {card(output / '1')['accuracy']:.4f}" in printed
    assert f"of {output / '1'} (--max-regression, or --force)" in printed
    assert export(bad, "--max-regression", "0.3")[0] == 0
    # Version 2 is now the newest, than which this one is no worse; than what is stable it is.
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
    assert f"Nothing to compare it with: {output / '1'} can't be asked" in printed


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "mine.keras does not exist"), (b"no model", "mine.keras is no model that Keras can load")],
)
def test_a_file_that_is_no_model(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    file = tmp_path / "mine.keras"
    if content:
        file.write_bytes(content)
    result = CliRunner().invoke(cli.export, [str(file), "--output", str(tmp_path / "models")])
    assert result.exit_code == 1
    assert complaint in result.stderr


def test_a_model_of_letters_is_named(dataset: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "letters.keras"
    keras.Sequential([keras.Input((784,)), layers.Dense(26, activation="softmax")]).save(file)
    result = CliRunner().invoke(cli.export, [str(file), "--output", str(tmp_path / "models")])
    assert result.exit_code == 1
    assert result.stderr == f"Error: {file}: the model answers [n, 26], not [n, 10]\n"


def test_help_loads_no_tensorflow() -> None:
    code = (
        "import sys, digit_training.cli; sys.exit(bool({'tensorflow', 'keras', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
