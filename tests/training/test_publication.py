"""Publication: the names of models, and the steps after it."""

import os
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest

from digit_core.artifact.models_folder import ModelsFolder
from digit_core.artifact.task_card import DIGITS, CardInput, CardPreparation, TaskCard
from digit_core.artifact.versions import ArtifactError
from digit_training.errors import CardError, PromotionError
from digit_training.publication import Target
from digit_training.quality_gate import QualityGate
from tests.training.conftest import COLORS, write_version


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Target:
    """Target with a models folder at its default place, which verifies nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DIGITS_MODELS", raising=False)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    return Target(ModelsFolder(Path("models"), verify=Mock()), QualityGate(0.85))


def publish(target: Target, task: TaskCard = DIGITS) -> list[str]:
    """Publish a version; return the printed lines."""
    lines: list[str] = []
    target.publish(task.name, partial(write_version, {"task": task.to_document()}), lines.append)
    return lines


def test_publish_first_version_is_stable_and_a_later_one_prints_the_next_steps(target: Target) -> None:
    assert publish(target) == [
        "Published: models/digits/1",
        "Version 1 of digits is stable: it answers callers who name no version.",
    ]
    assert publish(target) == [
        "Published: models/digits/2",
        "Try it: digits predict --version 2 PICTURE",
        "Serve it: digits models promote 2",
    ]
    config = target.models.read_config()
    assert (config.labels("digits"), config.listed("digits")) == ({"stable": 1}, {1, 2})


def test_publish_of_another_model_in_another_folder_names_both(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = replace(target, models=replace(target.models, root=Path("my models")))
    publish(elsewhere, COLORS)
    steps = [
        "Try it: digits predict --version 2 --model colors PICTURE",
        "Serve it: digits models promote 2 --model colors --models 'my models'",
    ]
    assert publish(elsewhere, COLORS)[1:] == steps
    monkeypatch.setenv("DIGITS_MODELS", "my models")
    assert publish(elsewhere, COLORS)[2] == "Serve it: digits models promote 3 --model colors"
    publish(elsewhere)
    assert publish(elsewhere)[2] == "Serve it: digits models promote 2 --model digits"


def test_publish_of_another_input_says_what_changes(target: Target) -> None:
    publish(target, COLORS)
    larger = replace(COLORS, input=CardInput((64, 64, 3), COLORS.range), prepare=CardPreparation(fit="pad"))
    height, width, _ = COLORS.shape
    assert publish(target, larger)[1] == (
        "Version 2 takes 64×64 pictures and the fit pad, "
        f"version 1 took {height}×{width} pictures and the fit {COLORS.prepare.fit}."
    )
    assert publish(target, larger)[1].startswith("Try it")


def test_publish_names_the_command_by_its_path_unless_a_shell_finds_it(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(target)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "digits").touch()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", "")
    assert publish(target)[1] == "Try it: bin/digits predict --version 2 PICTURE"


def test_publish_leaves_the_config_of_others_alone_and_says_what_to_write(target: Target) -> None:
    publish(target)
    before = 'model_config_list { config { name: "digits" base_path: "/models/digits" } }'
    target.models.config_path.write_text(before)
    (line,) = publish(target)[1:]
    assert line.startswith("models/models.config is left alone, since Digits did not write it.")
    assert "model_version_policy { specific { versions: 2 } } to load it" in line
    assert 'version_labels { key: "stable" value: 2 } to serve it' in line
    assert target.models.config_path.read_text() == before


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """File to which a program in place of `python` writes its arguments; the program then fails."""
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\necho "$DIGITS_MODELS $@" > {tmp_path / "arguments"}\nexit 3\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    return tmp_path / "arguments"


def test_publish_with_promote_runs_the_command_and_fails_with_it(target: Target, command: Path) -> None:
    promoting = replace(target, promote=True)
    assert len(publish(promoting)) == 2
    assert not command.exists()
    with pytest.raises(
        PromotionError,
        match=r"^models/digits/2 is published, but not promoted; try again: digits models promote 2$",
    ):
        publish(promoting)
    assert command.read_text() == "models -m digit_client models promote 2\n"
    command.with_name("python").write_text("#!/bin/sh\n")
    assert publish(promoting) == ["Published: models/digits/3"]


def test_check_of_another_task_under_a_name_raises_card_error(target: Target) -> None:
    publish(target, COLORS)
    (target.models.root / "colors" / "7").mkdir()
    target.check(replace(COLORS, input=CardInput((32, 32), (0.0, 1.0)), prepare=CardPreparation(fit="pad")))
    exact = replace(COLORS, prepare=CardPreparation("none"))
    target.check(replace(exact, name="other"))
    own = r"models/colors/1 has 4 labels \(red, green, blue, grey\) and the kind resize"
    for task, described in (
        (replace(COLORS, labels=("a", "b")), r"2 labels \(a, b\) and the kind resize"),
        (exact, r"4 labels \(red, green, blue, grey\) and the kind none"),
    ):
        with pytest.raises(CardError, match=rf"^{own}, this model has {described}: .*--rename NAME"):
            target.check(task)


def test_check_of_an_invalid_models_folder_raises_artifact_error(target: Target) -> None:
    publish(target)
    with pytest.raises(ArtifactError, match="name the folder of all models: --models models"):
        replace(target, models=ModelsFolder(Path("models/digits"))).check(DIGITS)
    target.models.config_path.write_text("model_config_list {")
    with pytest.raises(ArtifactError, match=r"models/models\.config: invalid configuration"):
        target.check(DIGITS)


def test_check_compares_the_room_with_the_latest_version_or_else_the_weights(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", Mock(return_value=Mock(free=3 * 2**20)))
    target.check(DIGITS, parameters=2**18)
    with pytest.raises(OSError, match=r"; 4\.0 MiB are needed, and 3\.0 MiB are free$"):
        target.check(DIGITS, parameters=2**20)
    publish(target)
    target.check(DIGITS, parameters=2**20)
    weights = Path("models/digits/1/weights")
    weights.touch()
    os.truncate(weights, 4 * 2**20)
    with pytest.raises(OSError, match=r"^models can't be written: .*; 4\.0 MiB are needed"):
        target.check(DIGITS)
