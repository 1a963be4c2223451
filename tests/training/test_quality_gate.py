"""."""

from pathlib import Path

import pytest

from digit_training import quality_gate
from digit_training.errors import AccuracyError, DataError
from digit_training.quality_gate import Bar

BAR = Bar(minimum=0.85, regression=0.01)


@pytest.mark.parametrize("standard", [None, ("models/1", 0.85), ("models/1", 0.86)])
def test_the_bar_itself_is_high_enough(standard: tuple[str, float] | None) -> None:
    BAR.require(0.85, standard)


@pytest.mark.parametrize(
    ("accuracy", "standard", "complaint"),
    [
        (0.8499, None, "0.8499 is below the minimum of 0.85"),
        (0.8499, ("models/1", 0.1), "0.8499 is below the minimum of 0.85"),
        (0.9799, ("models/1", 0.99), "0.9799 is more than 0.01 below the 0.9900 of models/1"),
    ],
)
def test_a_model_below_it_passes_only_by_force(
    accuracy: float, standard: tuple[str, float] | None, complaint: str
) -> None:
    with pytest.raises(AccuracyError, match=complaint):
        BAR.require(accuracy, standard)
    Bar(BAR.minimum, BAR.regression, forced=True).require(accuracy, standard)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for name in ("00001", "2", "3", "canary"):
        (tmp_path / name).mkdir()
    return tmp_path


def label(models: Path, name: str, version: int) -> None:
    labels = f'version_labels {{ key: "{name}" value: {version} }}'
    (models / "models.config").write_text(
        f'# Earlier, stable was: 2\nmodel_config_list {{ config {{ name: "digits" {labels} }} }}'
    )


def test_without_a_label_it_is_the_newest(models: Path, tmp_path: Path) -> None:
    assert quality_gate.find(models) == models / "3"
    label(models, "canary", 2)
    assert quality_gate.find(models) == models / "3"
    assert quality_gate.find(tmp_path / "none") is None


def test_it_is_what_carries_the_label(models: Path) -> None:
    label(models, "stable", 1)
    assert quality_gate.find(models) == models / "00001"


def test_a_label_of_a_version_that_is_gone_says_nothing(models: Path) -> None:
    label(models, "stable", 7)
    assert quality_gate.find(models) == models / "3"


def test_a_file_of_no_use_is_told(models: Path) -> None:
    (models / "models.config").write_text("model_config_list {")
    with pytest.raises(DataError, match=r"models\.config is not what TensorFlow Serving reads"):
        quality_gate.find(models)
