from pathlib import Path

import pytest

from digit_training import standard
from digit_training.errors import DataError


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
    assert standard.find(models) == models / "3"
    label(models, "canary", 2)
    assert standard.find(models) == models / "3"
    assert standard.find(tmp_path / "none") is None


def test_it_is_what_carries_the_label(models: Path) -> None:
    label(models, "stable", 1)
    assert standard.find(models) == models / "00001"


def test_a_label_of_a_version_that_is_gone_says_nothing(models: Path) -> None:
    label(models, "stable", 7)
    assert standard.find(models) == models / "3"


def test_a_file_of_no_use_is_told(models: Path) -> None:
    (models / "models.config").write_text("model_config_list {")
    with pytest.raises(DataError, match=r"models\.config is not what TensorFlow Serving reads"):
        standard.find(models)
