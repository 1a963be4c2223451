"""What the project says of itself."""

import ast
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {"digit_client": "client", "digit_serving": "serving", "digit_training": "training"}
MAY_IMPORT = {
    "digit_client": {"digit_client"},
    "digit_serving": {"digit_serving", "digit_client"},
    "digit_training": {"digit_training", "digit_client"},
}


def test_changelog_names_this_version_after_what_is_unreleased() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert headings[:2] == ["Unreleased", declared]
    assert declared == version("digit-serving")


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_import_only_what_they_may(package: str) -> None:
    for path in (ROOT / ROOMS[package] / package).rglob("*.py"):
        ours = {name for name in _imports(path) if name in ROOMS}
        assert ours <= MAY_IMPORT[package], path


def test_registries_and_machines_are_not_pinned() -> None:
    assert "://" not in (ROOT / "constraints.txt").read_text()


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names
