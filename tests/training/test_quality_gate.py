"""Quality gate: thresholds, and the choice of the baseline version."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from digit_training import quality_gate
from digit_training.comparison import Comparison, Comparisons
from digit_training.errors import DataError, NotPublishedError
from digit_training.quality_gate import MIN_HELD_OUT, QualityGate

GATE = QualityGate(min_accuracy=0.85, max_regression=0.01)


def make_comparison(name: str, right: int, served: int | None = None, count: int = 10_000) -> Comparison:
    """Return a comparison of models that answer the first pictures correctly, in these numbers."""
    numbers = np.arange(count)
    return Comparison(name, numbers < right, None if served is None else numbers < served, count < 1000)


def judge(
    test: Comparison, feedback: Comparison | None = None, hard_pictures: Comparison | None = None
) -> Comparisons:
    return Comparisons("models/1", test, feedback, hard_pictures)


EQUAL = make_comparison("the test set", 9900, 9900)


@pytest.mark.parametrize("served", [None, 8500, 8600])
def test_check_accuracy_at_the_thresholds_passes(served: int | None) -> None:
    GATE.check(judge(make_comparison("the test set", 8500, served)))


@pytest.mark.parametrize(
    ("right", "served", "message"),
    [
        (8499, None, "0.8499 is below the minimum of 0.85"),
        (8499, 1000, "0.8499 is below the minimum of 0.85"),
        (9799, 9900, "0.9799 on the test set is more than 0.01 below the 0.9900 of models/1"),
    ],
)
def test_check_accuracy_below_a_threshold_passes_only_with_force(
    right: int, served: int | None, message: str
) -> None:
    comparisons = judge(make_comparison("the test set", right, served))
    with pytest.raises(NotPublishedError, match=message):
        GATE.check(comparisons)
    replace(GATE, force=True).check(comparisons)


def test_check_loss_on_few_pictures_counts_only_if_it_is_no_chance() -> None:
    # Of equally good models, one in 16 alone loses all of four different answers, one in 32 all of five.
    GATE.check(judge(EQUAL, make_comparison("the held-out feedback", 36, 40, 40)))
    feedback, hard_pictures = (make_comparison(name, 35, 40, 40) for name in ("the feedback", "the hard"))
    for worse in (judge(EQUAL, feedback), judge(EQUAL, None, hard_pictures)):
        with pytest.raises(NotPublishedError, match=r"0\.8750 on the .* is more than 0\.01 below the 1"):
            GATE.check(worse)
        replace(GATE, max_regression=0.125).check(worse)


def test_check_gain_below_the_minimum_is_not_published() -> None:
    gate = replace(GATE, min_gain=0.05)
    gate.check(judge(EQUAL, make_comparison("the held-out feedback", 350, 300, 999)))
    with pytest.raises(NotPublishedError, match=r"0\.3483 on the held-out feedback is not 0\.05 above"):
        gate.check(judge(EQUAL, make_comparison("the held-out feedback", 348, 300, 999)))
    gate.check(judge(EQUAL, make_comparison("the held-out feedback", 31, None, 100)))


def test_check_gain_that_may_be_chance_is_not_published() -> None:
    gate = replace(GATE, min_gain=0.05)
    with pytest.raises(NotPublishedError, match="beyond chance: 4 answers gained, 0 lost"):
        gate.check(judge(EQUAL, make_comparison("the held-out feedback", 34, 30, 40)))
    # No gain is asked for, so none needs evidence.
    replace(GATE, min_gain=0.0).check(judge(EQUAL, make_comparison("the held-out feedback", 30, 30, 40)))


def test_check_held_out_too_few_for_a_gain_is_not_published() -> None:
    GATE.check_held_out(0)
    gate = replace(GATE, min_gain=0.0)
    gate.check_held_out(MIN_HELD_OUT)
    with pytest.raises(NotPublishedError, match="19 held-out digits are too few to show a gain"):
        gate.check_held_out(MIN_HELD_OUT - 1)
    replace(gate, force=True).check_held_out(0)


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
