"""Fixtures of the tests of models folders."""

from pathlib import Path

import pytest

from digit_core.artifact.models_folder import ModelsFolder
from tests.core.artifact.folders import require_variables


@pytest.fixture
def folder(tmp_path: Path) -> ModelsFolder:
    """Empty models folder."""
    return ModelsFolder(tmp_path / "models", require_variables)
