"""Version, changelog, and the direction of imports."""

import re
import tomllib
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import version

import pytest

from tests.imports import FOLDERS, ROOT, imports, project_imports

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
        imported = {name.partition(".")[0] for name in imports(path)}
        assert imported & FOLDERS.keys() <= MAY_IMPORT[package], path


def test_modules_import_each_other_in_no_circle() -> None:
    try:
        TopologicalSorter(project_imports()).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(error.args[1]))


def test_only_the_command_line_imports_the_readers_laboratory() -> None:
    root = ROOT / "training" / "digit_training"
    importers = {
        path.relative_to(root).parts[0]
        for path in root.rglob("*.py")
        if any(name.startswith("digit_training.reader.") for name in imports(path))
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
