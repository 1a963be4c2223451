"""Version, changelog, and the direction of imports."""

import ast
import re
import tomllib
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {
    "digit_core": "client",
    "digit_client": "client",
    "digit_serving": "serving",
    "digit_training": "training",
}
MAY_IMPORT = {
    "digit_core": {"digit_core"},
    "digit_client": {"digit_client", "digit_core"},
    "digit_serving": {"digit_serving", "digit_client", "digit_core"},
    "digit_training": {"digit_training", "digit_core"},
}
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_installed_version_is_that_of_pyproject() -> None:
    assert version("digits") == VERSION


def test_changelog_headings_are_unreleased_then_this_version_with_date() -> None:
    headings = re.findall(r"^## (.*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert re.fullmatch(rf"{re.escape(VERSION)} - \d{{4}}-\d\d-\d\d", headings[1])


def test_kubernetes_images_have_this_version() -> None:
    files = (path for path in (ROOT / "k8s").rglob("*.yaml") if "config" not in path.parts)
    text = "".join(path.read_text() for path in files)
    tags = re.findall(r"digits-(?!model:)[a-z-]+:(\d+\.\d+\.\d+)", text)
    chart = re.findall(r"^(?:version|appVersion): (\S+)", text, re.MULTILINE)
    assert len(chart) == 2
    assert {*tags, *chart} == {VERSION}


@pytest.mark.parametrize("package", FOLDERS)
def test_package_imports_only_packages_below_it(package: str) -> None:
    for path in (ROOT / FOLDERS[package] / package).rglob("*.py"):
        imported = {name.partition(".")[0] for name in _imports(path)}
        assert imported & FOLDERS.keys() <= MAY_IMPORT[package], path


def test_modules_import_each_other_in_no_circle() -> None:
    """Imports in functions and for type checkers count."""
    paths = {
        ".".join(path.relative_to(ROOT / folder).with_suffix("").parts).removesuffix(".__init__"): path
        for folder in {*FOLDERS.values()}
        for path in (ROOT / folder).rglob("*.py")
    }
    imported: dict[str, set[str]] = {}
    for module, path in paths.items():
        names = {name if name in paths else name.rpartition(".")[0] for name in _imports(path)}
        imported[module] = names & paths.keys() - {module}
    try:
        TopologicalSorter(imported).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(error.args[1]))


def test_only_the_command_line_imports_the_readers_laboratory() -> None:
    root = ROOT / "training" / "digit_training"
    importers = {
        path.relative_to(root).parts[0]
        for path in root.rglob("*.py")
        if any(name.startswith("digit_training.reader.") for name in _imports(path))
    }
    assert importers == {"cli.py", "reader"}


def test_packages_share_no_private_module() -> None:
    """A module that begins with an underscore is imported by its own package alone."""
    for package, folder in FOLDERS.items():
        for path in (ROOT / folder / package).rglob("*.py"):
            private = re.findall(
                r"^\s*from (digit_\w+)[\w.]*\._\w+ import|from (digit_\w+)\._\w+", path.read_text()
            )
            assert {name for names in private for name in names if name} <= {package}, path


def test_constraints_name_no_address() -> None:
    assert "://" not in (ROOT / "constraints.txt").read_text()


def _imports(path: Path) -> set[str]:
    """Return the full names of what a module imports: modules, and names in modules."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names
