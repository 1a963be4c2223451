"""Choice of the model and the version that a run serves itself."""

import json
from pathlib import Path

import pytest

from digit_client import TaskCard
from digit_serving.releases.config import ModelsConfig, ReleaseError
from digit_serving.scoring.local_model import LocalModel


def publish(folder: Path, version: int, name: str = "digits") -> None:
    """Write a version whose model card names the model."""
    extra = folder / str(version) / "assets.extra"
    extra.mkdir(parents=True)
    task = TaskCard(name, ("left", "right"), (8, 6), (0.0, 1.0))
    (extra / "model.json").write_text(json.dumps({"task": task.to_document()}))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for version in (1, 2, 10):
        publish(tmp_path / "digits", version)
    return tmp_path / "digits"


def test_find_default_is_newest_version(models: Path) -> None:
    assert LocalModel.find(models, None, None, None) == LocalModel("digits", 10, models)


def test_find_default_is_version_that_models_config_serves(models: Path) -> None:
    config = ModelsConfig.of_newest({"digits": models}).with_versions("digits", [1, 2])
    (models / "models.config").write_text(str(config.promote("digits", 1, "stable")))
    assert LocalModel.find(models, None, None, None).version == 2
    assert LocalModel.find(models, None, None, "stable").version == 1


def test_find_number_is_any_published_version(models: Path) -> None:
    assert LocalModel.find(models, "digits", 2, None).version == 2
    with pytest.raises(ReleaseError, match="version 3 does not exist"):
        LocalModel.find(models, None, 3, None)


def test_find_unknown_label_raises(models: Path) -> None:
    with pytest.raises(ReleaseError, match="digits has no label canary"):
        LocalModel.find(models, None, None, "canary")


def test_find_among_several_models_needs_a_name(models: Path) -> None:
    publish(models.parent / "colors", 4, "colors")
    assert LocalModel.find(models.parent, "colors", None, None).version == 4
    with pytest.raises(ReleaseError, match="choose one with --model"):
        LocalModel.find(models.parent, None, None, None)
