"""Quality gate: thresholds, and the choice of the baseline version."""

from dataclasses import replace
from pathlib import Path

import pytest

from digit_training import quality_gate
from digit_training.errors import AccuracyError, DataError
from digit_training.quality_gate import Baseline, QualityGate

GATE = QualityGate(min_accuracy=0.85, max_regression=0.01)


@pytest.mark.parametrize("baseline", [None, Baseline("models/1", 0.85), Baseline("models/1", 0.86)])
def test_check_accuracy_at_the_thresholds_passes(baseline: Baseline | None) -> None:
    GATE.check(0.85, baseline)


@pytest.mark.parametrize(
    ("accuracy", "baseline", "message"),
    [
        (0.8499, None, "0.8499 is below the minimum of 0.85"),
        (0.8499, Baseline("models/1", 0.1), "0.8499 is below the minimum of 0.85"),
        (0.9799, Baseline("models/1", 0.99), "0.9799 is more than 0.01 below the 0.9900 of models/1"),
    ],
)
def test_check_accuracy_below_a_threshold_passes_only_with_force(
    accuracy: float, baseline: Baseline | None, message: str
) -> None:
    with pytest.raises(AccuracyError, match=message):
        GATE.check(accuracy, baseline)
    replace(GATE, force=True).check(accuracy, baseline)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Models folder with versions 1, 2 and 3, and a folder that is not a version."""
    for name in ("00001", "2", "3", "canary"):
        (tmp_path / name).mkdir()
    return tmp_path


def write_label(models: Path, name: str, version: int) -> None:
    """Write a `models.config` with one label, as `digits models promote` does."""
    labels = f'version_labels {{ key: "{name}" value: {version} }}'
    (models / "models.config").write_text(
        f'# Previous stable version: 2\nmodel_config_list {{ config {{ name: "digits" {labels} }} }}'
    )


def test_baseline_version_without_stable_label_is_the_newest(models: Path, tmp_path: Path) -> None:
    assert quality_gate.baseline_version(models) == models / "3"
    write_label(models, "canary", 2)
    assert quality_gate.baseline_version(models) == models / "3"
    assert quality_gate.baseline_version(tmp_path / "none") is None


def test_baseline_version_is_the_one_labelled_stable(models: Path) -> None:
    write_label(models, "stable", 1)
    assert quality_gate.baseline_version(models) == models / "00001"


def test_baseline_version_in_shared_config_is_that_of_its_folder(tmp_path: Path) -> None:
    for name in ("digits/1", "flowers/1", "flowers/2"):
        (tmp_path / name).mkdir(parents=True)
    entries = [
        f'config {{ base_path: "/models/{name}" version_labels {{ key: "stable" value: {version} }} }}'
        for name, version in (("digits", 2), ("flowers", 1))
    ]
    (tmp_path / "models.config").write_text(f"model_config_list {{ {' '.join(entries)} }}")
    assert quality_gate.baseline_version(tmp_path / "flowers") == tmp_path / "flowers" / "1"


def test_baseline_version_with_label_of_missing_version_is_the_newest(models: Path) -> None:
    write_label(models, "stable", 7)
    assert quality_gate.baseline_version(models) == models / "3"


def test_baseline_version_with_damaged_config_raises_data_error(models: Path) -> None:
    (models / "models.config").write_text("model_config_list {")
    with pytest.raises(DataError, match=r"models\.config is not a valid TensorFlow Serving configuration"):
        quality_gate.baseline_version(models)
