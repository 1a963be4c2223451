"""Commands `digits train` and `digits export`, run in this process; with the mark e2e, as subprocesses."""

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from keras import layers

from digit_core import images
from digit_core.artifact import models_folder
from digit_core.artifact.models_folder import ModelsFolder
from digit_core.artifact.task_card import NO_CLASS, TaskCard
from digit_core.artifact.versions import Version
from digit_core.feedback.store import FeedbackStore
from digit_training import cli, evaluation, pictures, pipeline
from digit_training.classifier import to_pixels
from digit_training.data import read_hard_pictures
from digit_training.errors import Interrupted, ModelError
from digit_training.export import predict_saved_model
from digit_training.fit import FitResult
from digit_training.publication import Target
from digit_training.quality_gate import QualityGate
from digit_training.reader import crops
from digit_training.reader import pipeline as reader_pipeline
from digit_training.recipes import RECIPES, FitRun
from tests.conftest import Digits
from tests.processes import DIGITS
from tests.records import make_record
from tests.training.conftest import COLORS, COLORS_TOML, draw_color, predict

pytestmark = [
    pytest.mark.xdist_group("fits"),
    pytest.mark.usefixtures("quick_publication"),
]


REPORT_FILES = {"model.keras", "report.html", "digits.json", "digits.weights.h5"}


@dataclass(frozen=True)
class Folders:
    """Places of a test: models folder, report and store of feedback."""

    root: Path

    @property
    def models(self) -> ModelsFolder:
        return ModelsFolder(self.root / "models", verify=Mock())

    @property
    def report(self) -> Path:
        return self.root / "report"

    @property
    def store(self) -> str:
        return f"sqlite:///{self.root / 'feedback.db'}"

    @property
    def options(self) -> list[object]:
        return ["--models", self.models.root, "--report", self.report]

    def version(self, number: int, model: str = "digits") -> Path:
        return self.models.root / model / str(number)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


def read_card(version: Path) -> dict[str, Any]:
    return dict(json.loads((version / "assets.extra" / "model.json").read_text()))


def publish_copy(folders: Folders, version: Version) -> Path:
    """Publish a copy of a version as the next one; the first is stable."""
    copy = partial(shutil.copytree, version.path, dirs_exist_ok=True)
    return folders.models.publish(version.model, copy).path


def train(*arguments: object, model: str = "perceptron") -> tuple[int, str]:
    """Run `digits train` for one epoch; return its exit status and all that it prints."""
    options = ["--model", model, "--epochs", "1", "--min-accuracy", "0"]
    result = CliRunner().invoke(cli.train, [*options, *map(str, arguments)])
    return result.exit_code, result.output


def export(*arguments: object, environment: dict[str, str] | None = None) -> tuple[int, str]:
    """Run `digits export`; return its exit status and all that it prints."""
    result = CliRunner(env=environment).invoke(cli.export, [*map(str, arguments)])
    return result.exit_code, result.output


@pytest.fixture
def quick_publication(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish without verification, whose process imports TensorFlow, and judge refusals by few negatives."""
    monkeypatch.setattr(models_folder, "ModelsFolder", partial(ModelsFolder, verify=Mock()))
    monkeypatch.setattr(evaluation, "NEGATIVES_PER_KIND", 5)


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
def test_train_offline_uses_the_sample(tmp_path: Path) -> None:
    options = ["--model", "perceptron", "--epochs", "2", "--min-accuracy", "1"]
    result = run_offline("train", *options, folder=tmp_path)
    assert result.returncode == 4
    assert result.stderr.startswith("Error: not published: the accuracy ")
    assert len(result.stderr.splitlines()) == 1
    lines = result.stdout.splitlines()
    assert lines[0].startswith("MNIST cannot be downloaded")
    assert "4,000 training and 1,000 test digits" in lines[1]
    assert "7,960" in result.stdout
    (report,) = (tmp_path / "runs").iterdir()
    assert {path.name for path in report.iterdir()} == REPORT_FILES
    assert json.loads((report / "digits.json").read_text())["data"]["offline"] is True


def test_train_recipe_writes_report_and_publishes_the_network(
    idx_folder: Path, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "full", RECIPES["perceptron"])
    status, printed = train("--recipe", "full", "--data", idx_folder, *folders.options, model="convnet")
    assert status == 0, printed
    assert f"Data: 200 training and 100 test digits from {idx_folder} (not the original MNIST)" in printed
    assert printed.count(" Total params: 7,960 ") == 1
    assert f"Published: {folders.version(1)}\n" in printed
    assert f"Published: {folders.version(1, 'reader')}\n" in printed
    assert {path.name for path in folders.report.iterdir()} == REPORT_FILES
    card = read_card(folders.version(1))
    assert (card["model"], card["parameters"]) == ("perceptron", 7960)
    assert card["command"] == "digits train --recipe full --seed 0 --epochs 1"


def test_train_missing_data_prints_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITS_MNIST", "mnist.npz")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.train)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: mnist.npz does not exist\n"
    assert not Path("models").exists()


def test_train_below_minimum_accuracy_publishes_nothing(digits_folder: Path, folders: Folders) -> None:
    options = ["--data", digits_folder, "--learning-rate", "1e-9", "--min-accuracy", "0.85"]
    status, printed = train(*folders.options, *options)
    assert f"Data: 50 training and 10 test digits from {digits_folder} (not the original MNIST)" in printed
    assert "Left out as unreadable: 1 (3/notes.txt: " in printed
    assert status == 4
    assert "Error: not published: the accuracy" in printed
    assert not folders.models.root.exists()


class ImpatientTerminal(io.StringIO):
    """Standard output that sends SIGINT to this process once `text` is written."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def write(self, text: str) -> int:
        if self.text in text:
            signal.raise_signal(signal.SIGINT)
        return super().write(text)


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("model", ["perceptron", "reader"])
def test_train_on_a_full_disk_fits_nothing(
    model: str, idx_folder: Path, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (pipeline, reader_pipeline):
        monkeypatch.setattr(module, "fit", Mock(side_effect=AssertionError))
    printed = train("--data", idx_folder, *folders.options, model=model)
    assert printed == (1, f"Error: {folders.models.root} can't be written: No space left on device\n")
    assert not folders.models.root.exists()


def test_train_whose_report_can_not_be_written_fits_nothing(idx_folder: Path, folders: Folders) -> None:
    folders.report.touch()
    status, printed = train("--data", idx_folder, *folders.options)
    assert status == 1
    assert printed.endswith(f"Error: {folders.report} can't be written: Not a directory\n")
    assert not folders.models.root.exists()


@pytest.mark.usefixtures("full_disk")
def test_export_on_a_full_disk_evaluates_nothing(
    fitted: FitResult, mnist_npz: Path, tmp_path: Path, folders: Folders
) -> None:
    fitted.model.save(tmp_path / "model.keras")
    arguments = (tmp_path / "model.keras", "--data", mnist_npz, "--models", folders.models.root)
    status, printed = export(*arguments)
    assert (status, printed.splitlines()[1:]) == (
        1,
        [f"Error: {folders.models.root} can't be written: No space left on device"],
    )


@pytest.mark.parametrize(
    ("text", "message", "kept"),
    [
        ("Trainable params", "before the end of the first epoch; no model is saved", set()),
        ("Epoch 2/20", "after [12] of 20 epochs; the model is not published", REPORT_FILES | {"backup-0"}),
    ],
)
def test_train_interrupted_keeps_whole_epochs_and_publishes_nothing(
    text: str, message: str, kept: set[str], idx_folder: Path, folders: Folders
) -> None:
    # pipeline.train instead of the command, which would end this process with os._exit.
    target = Target(folders.models, QualityGate(0))
    run = FitRun("perceptron", {"epochs": 20}, 0, idx_folder, folders.report)
    with (
        contextlib.redirect_stdout(ImpatientTerminal(text)),
        pytest.raises(Interrupted, match=message) as caught,
    ):
        pipeline.train(target, run, None, crops)
    assert {path.name for path in folders.report.iterdir()} == kept
    assert not folders.models.root.exists()
    if kept:
        command = f"digits export {folders.report / 'model.keras'} --models {folders.models.root}"
        assert str(caught.value).endswith(command)
        assert "Interrupted</strong> after" in (folders.report / "report.html").read_text()


@pytest.fixture
def store(digits: Digits, folders: Folders) -> FeedbackStore:
    """Store with 40 labelled digits of 40 requests, of which every second is held out, beside a reader."""
    folders.version(1, "reader").mkdir(parents=True)
    opened = FeedbackStore(folders.store)
    rows = range(300, 340)
    opened.save(
        [
            make_record(row, digits.images[row], label, predicted=label, held_out=row % 2 == 0)
            for row, label in zip(rows, map(str, digits.labels[300:340]), strict=True)
        ]
    )
    return opened


def test_train_with_feedback_from_stable_never_trains_on_what_tests_it_and_reports(
    digits: Digits, idx_folder: Path, folders: Folders, store: FeedbackStore, published: Version
) -> None:
    # A held-out picture, a test digit and a hard picture, sent again in requests that are not held out; and
    # negatives, from which a network of one output cannot learn.
    again = (digits.images[300], digits.images[200], read_hard_pictures().images[0])
    store.save([make_record(number, image, "1") for number, image in enumerate(again)])
    store.save([make_record(number, digits.images[number], NO_CLASS) for number in range(3, 7)])
    options = ["--data", idx_folder, *folders.options, "--feedback", folders.store]
    first = publish_copy(folders, published)
    status, printed = train(*options, "--from", "stable", "--min-gain", "0", "--force")
    assert status == 0, printed
    assert "Left out of the feedback: 4 (none of the labels, which this model never answers)" in printed
    assert "Left out of the feedback: 2 (also in the data that test the model)" in printed
    assert f"Feedback: 20 pictures of {folders.store} to learn from, each 10 times, and 20 to test" in printed
    assert f"Starting from {first}, epochs: 1\n" in printed
    assert re.search(
        rf"Accuracy on the held-out feedback, 20 pictures: [01]\.\d{{4}}; that of {first}: [01]\.\d{{4}}\n",
        printed,
    )
    assert "Accuracy on the hard pictures, 460 pictures: " in printed
    card = read_card(folders.version(2))
    assert card["started_from"] == str(first)
    assert card["fit"]["feedback_examples"] == 200
    feedback = card["feedback"]
    assert (feedback["source"], feedback["weight"]) == (folders.store, 10)
    assert feedback["held_out"]["inputs"] == sum(feedback["held_out"]["by_label"].values()) == 20
    assert card["comparisons"]["the hard pictures"]["served_accuracy"] is not None
    assert "Held-out feedback" in (folders.report / "report.html").read_text()


def test_train_with_wrong_labels_of_one_caller_is_refused_until_they_are_left_out(
    store: FeedbackStore,
    digits: Digits,
    idx_folder: Path,
    folders: Folders,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline, "fit", Mock(side_effect=ModelError("the fit has begun")))
    sevens = np.flatnonzero(digits.labels == 7)
    store.save(
        [
            make_record(number, digits.images[seven], "1", predicted="7", caller="mallory")
            for number, seven in enumerate(np.resize(sevens, 499))
        ]
    )
    options = ["--data", idx_folder, *folders.options, "--feedback", folders.store]
    status, printed = train(*options)
    assert status == 4
    assert "Labels that agree with the served answers, mallory: 0 of 499\n" in printed
    # Both callers labelled four of the sevens, differently: these are left out.
    assert "Error: not published: only 36 of 531 labels agree with the served answers" in printed
    assert not folders.models.versions("digits")
    status, printed = train(*options, "--without-caller", "mallory")
    assert (status, "Error: the fit has begun" in printed) == (1, True)
    assert "Feedback: 20 pictures of " in printed
    assert (
        "Without the votes of mallory: 0 pictures have another label, 495 have none any more, and 4 have one "
        "on which callers disagreed\n"
    ) in printed


def test_train_with_feedback_that_trains_nothing_or_without_sqlalchemy_fails(
    store: FeedbackStore, idx_folder: Path, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.delete(model="digits")
    options = ["--data", idx_folder, *folders.options, "--feedback", folders.store]
    status, printed = train(*options)
    assert (status, "has no labelled digits to learn from" in printed) == (4, True)
    monkeypatch.delattr("digit_training.feedback")
    for module in ("digit_training.feedback", "digit_core.feedback.store", "digit_core.feedback.table"):
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    status, printed = train(*options)
    assert status == 1
    assert "--feedback needs SQLAlchemy; install it: pip install 'digits[training,feedback]'" in printed


def test_train_from_stable_without_one_prints_the_reason(idx_folder: Path, folders: Folders) -> None:
    status, printed = train("--from", "stable", "--data", idx_folder, *folders.options)
    assert status == 1
    message = "has no stable version to start from; train the first one without --from"
    assert message in printed.splitlines()[-1]
    assert not folders.report.exists()


@contextlib.contextmanager
def fitting(data: Path, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a fit without end as a process in `folder`, whose fourth epoch has begun."""
    options = ["--data", str(data), "--model", "perceptron", "--epochs", "9999", "--report", "report"]
    with subprocess.Popen(
        [*DIGITS, "train", *options], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        output = ""
        while "Epoch 4/9999" not in output:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            output += line
        yield process


@pytest.mark.e2e
def test_train_terminated_says_how_it_goes_on_and_leaves_what_a_killed_one_leaves(
    idx_folder: Path, tmp_path: Path
) -> None:
    left, said = {}, {}
    for sent in (signal.SIGKILL, signal.SIGTERM):
        folder = tmp_path / sent.name
        folder.mkdir()
        with fitting(idx_folder, folder) as process:
            process.send_signal(sent)
            _, said[sent] = process.communicate(timeout=60)
        assert process.returncode == (143 if sent == signal.SIGTERM else -sent)
        left[sent] = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    assert said[signal.SIGKILL] == ""
    assert said[signal.SIGTERM] == (
        "\nTerminated; nothing is published. A fit goes on if the same command is repeated with --report and "
        "the folder of its report.\n"
    )
    assert left[signal.SIGTERM] == left[signal.SIGKILL]
    options = ["--data", str(idx_folder), "--model", "perceptron", "--epochs", "6", "--min-accuracy", "0"]
    again = run_offline("train", *options, "--report", "report", folder=tmp_path / "SIGTERM")
    assert again.returncode == 0, again.stderr
    assert "Epoch 6/6" in again.stdout
    assert "Epoch 1/6" not in again.stdout


@pytest.mark.e2e
def test_train_ctrl_c_leaves_a_model_that_export_publishes(idx_folder: Path, tmp_path: Path) -> None:
    with fitting(idx_folder, tmp_path) as process:
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Report: report/report.html" in rest
    assert "of 9999 epochs; the model is not published" in errors
    assert len(errors.strip().splitlines()) == 1
    assert not (tmp_path / "models").exists()
    _, *command = errors.partition("as it is, run ")[2].split()
    assert command == ["export", "report/model.keras"]
    command += ["--data", str(idx_folder), "--min-accuracy", "0"]
    assert run_offline(*command, folder=tmp_path).returncode == 0
    assert (tmp_path / "models" / "digits" / "1").is_dir()


def test_train_if_needed_publishes_the_shipped_network_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "reader" / "3").mkdir(parents=True)
    arguments = ["--if-needed", "--models", str(tmp_path)]
    printed = CliRunner().invoke(cli.train, arguments).output
    version = tmp_path / "digits" / "1"
    assert f"Published: {version}\n" in printed
    card = read_card(version)
    assert card["command"] in printed
    assert card["origin"] == "shipped with digits"
    before = {*tmp_path.rglob("*")}
    assert CliRunner().invoke(cli.train, arguments).output == f"Published already: {version}\n"
    assert {*tmp_path.rglob("*")} == before
    assert not (tmp_path / "reader" / "4").exists()


def test_export_of_two_outputs_tells_refusals_and_takes_test_pictures_alone(
    refusing: FitResult, digits: Digits, tmp_path: Path, folders: Folders
) -> None:
    refusing.model.save(tmp_path / "model.keras")
    blank = np.zeros((1, 28, 28), np.uint8)
    x, y = np.concatenate((digits.images[:200], blank)), np.append(digits.labels[:200], 0)
    np.savez(tmp_path / "test.npz", x_test=x, y_test=y)
    places = ("--data", tmp_path / "test.npz", "--models", folders.models.root)
    status, printed = export(tmp_path / "model.keras", *places, "--min-accuracy", "0.5")
    assert status == 0, printed
    assert "Data: 200 pictures in" in printed
    assert "Left out as refused in serving: 1 (index 200: " in printed
    assert re.search(r"Refused as no digit: \d+\.\d\d% of the test digits, \d+% of", printed)
    assert read_card(folders.version(1))["is_digit"]["threshold"] is None


def test_export_worse_than_the_stable_version_is_refused(
    fitted: FitResult, published: Version, mnist_npz: Path, folders: Folders
) -> None:
    first = publish_copy(folders, published)
    worse = keras.models.clone_model(fitted.model)
    # A large negative bias: the model never answers 7.
    *weights, biases = (weight.copy() for weight in fitted.model.get_weights())
    biases[7] = -100
    worse.set_weights([*weights, biases])
    worse.save(folders.root / "bad.keras")

    def publish(*options: str) -> tuple[int, str]:
        places = ("--data", mnist_npz, "--models", folders.models.root, "--min-accuracy", "0.5")
        return export(folders.root / "bad.keras", *places, *options)

    assert publish("--force")[0] == 0
    # The newest version, 2, is equally bad; the stable version is better.
    status, printed = publish()
    assert status == 4
    assert f"; that of {first}: {read_card(first)['accuracy']:.4f}\n" in printed
    assert re.search(rf"\d+ of \d+ pictures of '7' in the test set are lost, which {first} answers", printed)
    assert list(folders.models.versions("digits")) == [2, 1]


@pytest.fixture
def colors_task(tmp_path: Path, colors_folder: Path, folders: Folders) -> list[object]:
    """Options for a model of COLORS: card, test pictures and models folder."""
    card = tmp_path / "colors.toml"
    card.write_text(COLORS_TOML)
    return ["--task", card, "--data", colors_folder, "--models", folders.models.root]


@pytest.fixture
def colors_feedback(folders: Folders) -> str:
    """URL of a store with 40 labelled pictures of COLORS, all held out, and one of no colour."""
    rng, fields = np.random.default_rng(2), {"model": "colors", "held_out": True}
    records = [make_record(40, np.zeros(COLORS.shape, np.uint8), NO_CLASS, **fields)]
    for number in range(40):
        picture, label = images.prepare(draw_color(number % 4, rng), COLORS), COLORS.labels[number % 4]
        records.append(make_record(number, picture, label, predicted=label, **fields))
    FeedbackStore(folders.store).save(records)
    return folders.store


def test_export_with_feedback_is_judged_by_it_beside_the_test_set(
    colors_file: Path, colors_task: list[object], colors_feedback: str, folders: Folders
) -> None:
    places = [*colors_task, "--feedback", colors_feedback, "--min-accuracy", "0.5"]
    assert export(colors_file, *places)[0] == 0
    status, printed = export(colors_file, *places, "--min-gain", "0")
    assert status == 0, printed
    assert "Labels that agree with the served answers, all callers: 40 of 41\n" in printed
    assert "Left out of the feedback: 1 (none of the labels, which this model never answers)\n" in printed
    first = folders.version(1, "colors")
    assert re.search(rf"Accuracy on the test set, 20 pictures: [01]\.\d{{4}}; that of {first}: ", printed)
    assert f"digits models promote 2 --model colors --models {folders.models.root}\n" in printed
    judged = read_card(folders.version(2, "colors"))["comparisons"]["the held-out feedback"]
    assert judged["pictures"] == 40
    assert judged["served_accuracy"] == judged["accuracy"] > 0.9
    status, printed = export(colors_file, *places, "--min-gain", "0.1")
    assert status == 4
    assert "on the held-out feedback is not 0.1 above" in printed


def test_export_of_another_input_size_is_compared_on_the_feedback_of_each_card(
    colors_model: keras.Model,
    colors_file: Path,
    colors_task: list[object],
    colors_feedback: str,
    folders: Folders,
) -> None:
    places = [*colors_task, "--feedback", colors_feedback, "--min-accuracy", "0.5"]
    assert export(colors_file, *places)[0] == 0
    image = keras.Input((32, 24, 3))
    answers = image
    for layer in colors_model.layers:
        answers = layer(answers)
    keras.Model(image, answers, name="small").save(folders.root / "small.keras")
    status, printed = export(folders.root / "small.keras", *places)
    assert status == 0, printed
    found = re.search(r"held-out feedback, 40 pictures: (\S+); that of \S+/1: (\S+)\n", printed)
    assert found
    assert min(map(float, found.groups())) > 0.9
    # The smaller pictures are the served version's, scaled down; the sentences of both cards are told.
    assert "Version 2 takes 32×24 pictures, version 1 took 64×48 pictures" in printed


def test_export_warns_of_a_held_out_fall_that_chance_may_explain(
    colors_model: keras.Model, colors_file: Path, colors_task: list[object], folders: Folders
) -> None:
    rng, fields = np.random.default_rng(3), {"model": "colors", "held_out": True}
    records = [
        make_record(number, images.prepare(draw_color(number, rng), COLORS), label, predicted=label, **fields)
        for number, label in enumerate(COLORS.labels)
    ]
    FeedbackStore(folders.store).save(records)
    places = [*colors_task, "--feedback", folders.store, "--min-accuracy", "0.5"]
    assert export(colors_file, *places)[0] == 0
    worse = keras.models.clone_model(colors_model)
    weights, biases = colors_model.get_weights()
    worse.set_weights([weights, biases - np.array([100, 0, 0, 0], np.float32)])
    worse.save(folders.root / "worse.keras")
    printed = export(folders.root / "worse.keras", *places)[1]
    assert "Warning: the accuracy on the held-out feedback falls from 1.0000 to 0.7500. Chance may" in printed


def test_export_of_right_and_unsure_answers_says_so_and_publishes(
    colors_model: keras.Model, colors_task: list[object], folders: Folders
) -> None:
    unsure = keras.models.clone_model(colors_model)
    unsure.set_weights([0.05 * weights for weights in colors_model.get_weights()])
    unsure.save(folders.root / "unsure.keras")
    status, printed = export(folders.root / "unsure.keras", *colors_task)
    assert status == 0, printed
    assert (
        "The mean confidence is 0.32, less than the accuracy: callers who refuse unsure answers lose right "
        "ones\n"
    ) in printed


def test_export_beside_a_stable_version_that_cannot_be_loaded_needs_force(
    fitted: FitResult, published: Version, mnist_npz: Path, folders: Folders
) -> None:
    file, models = folders.root / "mine.keras", folders.models
    fitted.model.save(file)
    shutil.rmtree(publish_copy(folders, published) / "variables")
    publish_copy(folders, published)
    arguments = (file, "--data", mnist_npz, "--models", models.root, "--min-accuracy", "0.5")
    status, printed = export(*arguments)
    assert status == 1
    assert "Error: the model cannot be compared with the served version: " in printed
    assert printed.endswith("; --force publishes it anyway\n")
    assert 3 not in models.versions("digits")
    status, printed = export(*arguments, "--force")
    assert status == 0, printed
    assert "The model is not compared with the served version: " in printed
    assert models.read_config().labels("digits") == {"stable": 1}


def test_export_of_another_task_evaluates_reports_and_publishes(
    colors_file: Path, colors_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (colors_folder / "red" / "notes.txt").write_text("no picture")
    Path("colors.toml").write_text(COLORS_TOML)
    task = ["--task", "colors.toml", "--data", "validation"]
    status, printed = export(colors_file, *task, "--report", "report")
    assert status == 0, printed
    lines = printed.splitlines()
    assert lines[0] == "Input: [n, 64, 48, 3], black is -1 and white 1"
    assert lines[1] == "Data: 20 pictures in validation"
    assert lines[2].startswith("Left out as unreadable: 1 (red/notes.txt: ")
    assert re.fullmatch(r"Test accuracy: [01]\.\d{4} on 20 pictures, calibration error 0\.\d{4}", lines[3])
    assert lines[4:] == [
        "Report: report/report.html",
        "Published: models/colors/1",
        "Version 1 of colors is stable: it answers callers who name no version.",
    ]
    card = read_card(Path("models/colors/1"))
    assert TaskCard.from_document(card["task"]) == COLORS
    assert re.fullmatch("[0-9a-f]{64}", card["data"].pop("test_checksum"))
    assert card["data"] == {"source": "validation", "test": 20, "unreadable": 1, "refused": 0}
    assert card["source"]["file_sha256"] == hashlib.sha256(colors_file.read_bytes()).hexdigest()
    assert card["accuracy"] >= 0.9
    assert "red/notes.txt" in Path("report/report.html").read_text()


def test_export_of_multi_label_model_is_judged_by_average_precision(
    colors_folder: Path, tmp_path: Path
) -> None:
    """The model names the colours whose mean is above 140 of 255."""
    image = keras.Input((32, 32, 3))
    dense = layers.Dense(3, activation="sigmoid")
    model = keras.Model(image, dense(layers.GlobalAveragePooling2D()(layers.Rescaling(1 / 255)(image))))
    dense.set_weights([50 * np.eye(3, dtype=np.float32), np.full(3, -50 * 140 / 255, np.float32)])
    model.save(tmp_path / "mine.keras")
    flags = {"red": "1,0,0", "green": "0,1,0", "blue": "0,0,1", "grey": "0,0,0"}
    rows = [f"{name}/{number}.jpg,{values}" for name, values in flags.items() for number in range(5)]
    (colors_folder / "test.csv").write_text("\n".join(["file,red,green,blue", *rows]))
    (tmp_path / "card.toml").write_text(
        'name = "multi"\nlabels = ["red", "green", "blue"]\noutput = "multi-label"\nthreshold = 0.4\n'
    )
    models = tmp_path / "models"
    places = [tmp_path / "mine.keras", "--task", tmp_path / "card.toml", "--models", models]
    status, printed = export(*places, "--data", colors_folder / "test.csv", "--report", tmp_path / "report")
    assert status == 0, printed
    assert re.search(
        r"Test mAP: [01]\.\d{4}, precision [01]\.\d{4}, recall [01]\.\d{4} .* on 20 pictures", printed
    )
    assert "A multi-label task has no report." in printed
    card = read_card(models / "multi" / "1")
    assert card["accuracy"] is None
    assert card["multi_label"]["mean_average_precision"] > 0.9
    assert TaskCard.from_document(card["task"]).threshold == (0.4, 0.4, 0.4)
    status, printed = export(*places, "--data", colors_folder, "--output", "probabilities")
    assert (status, "threshold needs output = 'multi-label'" in printed) == (1, True)


def test_export_of_another_task_under_a_served_name_needs_another_name(
    colors_file: Path, colors_folder: Path, colors_task: list[object], folders: Folders
) -> None:
    models, places = folders.models, [*colors_task, "--min-accuracy", "0"]
    assert export(colors_file, *places)[0] == 0
    before = models.config_path.read_text()
    for label in COLORS.labels:
        (colors_folder / label).rename(colors_folder / f"{label}ish")
    (folders.root / "colors.toml").write_text(re.sub('(red|green|blue|grey)"', r'\1ish"', COLORS_TOML))
    status, printed = export(colors_file, *places, "--force")
    assert status == 1
    kinds = "1 has 4 labels (red, green, blue, grey) and the kind resize, this model has 4 labels (redi"
    assert kinds in printed
    assert (list(models.versions("colors")), models.config_path.read_text()) == ([1], before)
    assert export(colors_file, *places, "--rename", "a b")[0] == 1
    status, printed = export(colors_file, *places, "--rename", "shades")
    assert status == 0, printed
    (version,) = models.versions("shades").values()
    assert (version.task().name, version.task().labels[0]) == ("shades", "redish")


def test_export_of_labels_writes_a_minimal_card(
    tmp_path: Path, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = keras.Sequential(
        [keras.Input((28, 28)), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(10, "softmax")]
    )
    model.save("my garments.keras")
    np.savez("test.npz", images=digits.images[:50], labels=digits.labels[:50])
    labels = ["--labels", "T-shirt, trousers,c,d,e,f,g,h,i,ankle boot", "--data", "test.npz"]
    entries = ["--shape", "28,28,1", "--range=-1,1", "--fit", "pad", "--refuse-below", "0.1"]
    status, printed = export("my garments.keras", *labels, *entries, "--min-accuracy", "0")
    assert status == 0, printed
    task = TaskCard.from_document(read_card(Path("models/my-garments/1"))["task"])
    assert (task.name, task.labels[1], task.labels[9]) == ("my-garments", "trousers", "ankle boot")
    assert (task.shape, task.range, task.kind) == ((28, 28, 1), (-1, 1), "resize")
    assert (task.prepare.fit, task.refuse_below) == ("pad", 0.1)


def test_export_from_saved_model_answers_as_the_saved_model(
    colors_model: keras.Model, colors_folder: Path, colors_task: list[object], folders: Folders
) -> None:
    source = folders.root / "plain"
    colors_model.export(source, verbose=False)
    status, printed = export("--from-saved-model", source, *colors_task)
    assert status == 0, printed
    shutil.rmtree(source)
    pixels = pictures.load(colors_folder, COLORS).examples.images
    (outputs,) = predict_saved_model(folders.version(1, "colors"), pixels)
    expected = predict(colors_model, to_pixels(pixels, COLORS))
    assert np.abs(outputs["probabilities"] - expected).max() <= 1e-6
    assert read_card(folders.version(1, "colors"))["parameters"] == colors_model.count_params()


def test_export_without_data_is_not_evaluated_and_needs_force(
    colors_file: Path, colors_task: list[object], folders: Folders
) -> None:
    places = [*colors_task[:2], *colors_task[4:]]
    environment = {"DIGITS_MNIST": "not the data of this task"}
    status, printed = export(colors_file, *places, environment=environment)
    assert status == 1
    assert printed.endswith(
        "\nError: --data is needed to evaluate the model; --force publishes it without an evaluation\n"
    )
    assert not folders.models.root.exists()
    status, printed = export(colors_file, *places, "--force", environment=environment)
    assert status == 0, printed
    version = folders.version(1, "colors")
    assert (read_card(version)["accuracy"], read_card(version)["data"]) == (None, None)
    assert (version / "assets.extra" / "tf_serving_warmup_requests").is_file()


@pytest.mark.parametrize(
    ("card", "message"),
    [("name = ", "card.toml: the file is not TOML: "), (None, "card.toml: the file does not exist")],
)
def test_export_unsuitable_card_prints_one_line_with_its_name(
    card: str | None, message: str, colors_file: Path, tmp_path: Path
) -> None:
    if card:
        (tmp_path / "card.toml").write_text(card)
    places = ["--task", tmp_path / "card.toml", "--models", tmp_path / "models", "--force"]
    status, printed = export(colors_file, *places)
    assert status == 1
    assert printed.startswith(f"Error: {tmp_path}/{message}")
    assert len(printed.splitlines()) == 1
    assert not (tmp_path / "models").exists()


def test_export_range_that_the_network_contradicts_publishes_nothing(tmp_path: Path) -> None:
    first = [keras.Input((8, 8, 3)), layers.Rescaling(1 / 255), layers.GlobalAveragePooling2D()]
    model = keras.Sequential([*first, layers.Dense(2, "softmax")])
    model.layers[-1].set_weights([np.array([[-6, 6]] * 3, np.float32), np.zeros(2, np.float32)])
    model.save(tmp_path / "mine.keras")
    places = ["--labels", "dark,light", "--models", tmp_path / "models", "--force"]
    status, printed = export(tmp_path / "mine.keras", *places, "--range", "0,1")
    assert (status, not (tmp_path / "models").exists()) == (1, True)
    assert f"Error: {tmp_path / 'mine.keras'}: " in printed
    assert "equal answers in the range 0 to 1, and other ones in 0 to 255: say --range=0,255, or" in printed
    source = tmp_path / "saved"
    keras.models.load_model(tmp_path / "mine.keras").export(source, verbose=False)
    status, printed = export("--from-saved-model", source, *places, "--range", "0,1")
    assert (status, "other ones in 0 to 255: say --range=0,255" in printed) == (1, True)
    status, printed = export("--from-saved-model", source, *places, "--range", "0,255")
    assert status == 0, printed
    assert "since --data is missing. Range and output: not checked: no pictures\n" in printed
    card = read_card(tmp_path / "models" / "saved" / "1")
    assert (card["checked"], card["forced"]) == ("not checked: no pictures", ["published without --data"])


def test_export_below_the_minimum_names_no_convention_that_is_below_it_too(tmp_path: Path) -> None:
    """The answers are chance; in 0..1, where they are unsure, their log loss is lower."""
    rng, image = np.random.default_rng(1), keras.Input((8, 8, 3))
    answers = layers.Dense(4, "softmax")(layers.GlobalAveragePooling2D()(image))
    model = keras.Model(image, answers)
    model.layers[-1].set_weights([rng.normal(0, 1, (3, 4)), np.zeros(4)])
    model.save(tmp_path / "mine.keras")
    images = rng.integers(0, 256, (200, 8, 8, 3)).astype(np.uint8)
    np.savez(tmp_path / "test.npz", images=images, labels=np.arange(200) % 4)
    places = ["--labels", "a,b,c,d", "--data", tmp_path / "test.npz", "--models", tmp_path / "models"]
    status, printed = export(tmp_path / "mine.keras", *places, "--range", "0,255")
    assert status == 4, printed
    assert (
        "is below the minimum of 0.85 for 4 labels; of 30 conventions (ranges, orders of channels, "
        in printed
    )
    assert (
        "turned and inverted pictures), none that reaches it is better beyond chance; guessed: red "
        in printed
    )


def test_export_answers_that_depend_on_other_pictures_publishes_nothing(tmp_path: Path) -> None:
    """The answers sum to 1, and the test pictures are all answered correctly."""
    image = keras.Input((8, 8, 3))
    mean = layers.GlobalAveragePooling2D()(layers.Rescaling(1 / 255)(image))
    centred = mean - keras.ops.mean(mean, axis=0)
    model = keras.Model(image, layers.Dense(2, "softmax")(centred))
    model.layers[-1].set_weights([np.array([[-9, 9]] * 3, np.float32), np.zeros(2, np.float32)])
    model.save(tmp_path / "mine.keras")
    labels = np.tile([0, 1], 60)
    images = np.array([40, 200], np.uint8)[labels].repeat(192).reshape(-1, 8, 8, 3)
    np.savez(tmp_path / "test.npz", images=images, labels=labels)
    places = ["--labels", "dark,light", "--data", tmp_path / "test.npz", "--models", tmp_path / "models"]
    assert export(tmp_path / "mine.keras", *places) == (
        1,
        f"Error: {tmp_path / 'mine.keras'}: the model's answer to a picture changes by 0.5 beside dark ones, "
        "and in the service other callers' pictures are beside it: save it again with training=False "
        "(BatchNormalization, Dropout), without a layer that counts or draws at random, and without an "
        "operation over the axis of the batch (softmax, mean, boolean_mask)\n",
    )
    assert not (tmp_path / "models").exists()


def test_export_without_card_names_the_options(tmp_path: Path) -> None:
    file = tmp_path / "letters.keras"
    keras.Sequential([keras.Input((784,)), layers.Dense(26, activation="softmax")]).save(file)
    assert export(file, "--models", tmp_path / "models") == (
        1,
        f"Error: {file}: the model answers 26 classes, and there are 10 labels "
        "(the digits' card; see --task and --labels)\n",
    )
    status, printed = export(file, "--import", "no_such_module")
    assert (status, "Error: --import no_such_module: No module named" in printed) == (1, True)
    (tmp_path / "mine.onnx").write_bytes(b"model")
    status, printed = export(tmp_path / "mine.onnx")
    assert (status, "mine.onnx is not a .keras or .h5 file; docs/" in printed) == (1, True)


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (train, ["--recipe", "full"], "--recipe is for the convnet; --model perceptron has one recipe."),
        (train, ["--min-gain", "0.1"], "--min-gain and --without-caller need --feedback."),
        (train, ["--without-caller", "alice"], "--min-gain and --without-caller need --feedback."),
        (train, ["--feedback", ""], "--feedback needs the URL of a store; it is empty."),
        (train, ["--model", "reader", "--feedback", "sqlite:///f.db"], "--model reader takes no --feedback."),
        (train, ["--if-needed"], "--if-needed fits nothing, so it takes no --model, --epochs."),
        (export, [], "Give either FILE.keras or --from-saved-model."),
        (export, ["a.keras", "--from-saved-model", "b"], "Give either FILE.keras or --from-saved-model."),
        (export, ["a.keras", "--task", "a.toml", "--labels", "a,b"], "Give either --task or --labels."),
        (export, ["a.keras", "--output", "multi-label"], "--output multi-label needs --task or --labels."),
        (export, ["a.keras", "--range", "black,white"], "'black,white' is not a list of numbers"),
    ],
)
def test_contradictory_options_exit_with_2(
    command: Callable[..., tuple[int, str]], arguments: list[str], message: str
) -> None:
    status, printed = command(*arguments)
    assert status == 2
    assert message in printed
