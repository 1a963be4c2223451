"""Imports of the packages as their source states them, also in functions and for type checkers."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = {
    "digit_core": "client",
    "digit_client": "client",
    "digit_serving": "serving",
    "digit_training": "training",
}
"""Folder of each package."""


def modules() -> dict[str, Path]:
    """Return the file of each module, by its full name."""
    return {
        ".".join(path.relative_to(ROOT / folder).with_suffix("").parts).removesuffix(".__init__"): path
        for folder in {*FOLDERS.values()}
        for path in (ROOT / folder).rglob("*.py")
    }


def project_imports() -> dict[str, set[str]]:
    """Return the other modules of the packages that each module imports."""
    paths = modules()
    imported: dict[str, set[str]] = {}
    for module, path in paths.items():
        names = {name if name in paths else name.rpartition(".")[0] for name in imports(path)}
        imported[module] = names & paths.keys() - {module}
    return imported


def imports(path: Path) -> set[str]:
    """Return the full names of what a module imports: modules, and names in modules."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names
