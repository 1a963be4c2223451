"""Models folders whose versions need no TensorFlow."""

from pathlib import Path

from digit_core.artifact.models_folder import ModelsFolder
from digit_core.artifact.versions import ArtifactError


def write_files(folder: Path) -> None:
    """Write the files of a complete version, which hold no weights."""
    (folder / "variables").mkdir(parents=True)
    (folder / "assets.extra").mkdir()
    for name in ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"):
        (folder / name).write_text("bytes")


def require_variables(version: Path) -> None:
    """Refuse a version without weights, as its verification by TensorFlow does."""
    if not (version / "variables").is_dir():
        raise ArtifactError(f"{version} can't be served: no variables")


def publish(folder: ModelsFolder, count: int = 1, name: str = "digits") -> None:
    """Publish versions of a model."""
    for _ in range(count):
        folder.publish(name, write_files)


def move_label(folder: ModelsFolder, version: int, label: str = "stable") -> None:
    with folder.lock():
        folder.write_config(folder.read_config().with_label("digits", label, version))
