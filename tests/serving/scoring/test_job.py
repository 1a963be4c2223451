"""Choice of the model and the version that a run serves itself."""

from pathlib import Path

import pytest

from digit_core.artifact.models_folder import ModelsFolder
from digit_core.artifact.versions import ArtifactError
from digit_serving.scoring.job import find_version


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Models folder with versions 1 to 3 of the digits, of which 1 is stable, and 4, which was copied."""
    folder = ModelsFolder(tmp_path, verify=lambda _: None)
    for _ in range(3):
        folder.publish("digits", lambda _: None)
    (tmp_path / "digits" / "4").mkdir()
    return tmp_path


def find(models: Path, name: str | None = None, number: int | None = None, label: str | None = None) -> int:
    return find_version(models, name, number, label).number


def test_find_default_is_the_stable_version(models: Path) -> None:
    assert find(models) == find(models, label="stable") == 1


def test_find_number_is_any_published_version(models: Path) -> None:
    assert find(models, "digits", 2) == 2
    assert find(models, "digits", 4) == 4
    with pytest.raises(ArtifactError, match="version 5 does not exist"):
        find(models, number=5)


def test_find_unknown_label_raises(models: Path) -> None:
    with pytest.raises(ArtifactError, match="no version of digits is canary"):
        find(models, label="canary")


def test_find_among_several_models_needs_a_name(models: Path) -> None:
    ModelsFolder(models, verify=lambda _: None).publish("colors", lambda _: None)
    assert find_version(models, "colors", None, None).model == "colors"
    with pytest.raises(ArtifactError, match="choose one with --model"):
        find(models)
