"""Mutation testing: `python -m tests.mutants MODULE` prints changes of a module that no quick test notices.

Cosmic Ray changes one operator, number or branch at a time, in place, and puts the module back. The tests are
those of the mirrored path, and all that name the module.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
COSMIC_RAY = ["uv", "tool", "run", "--quiet", "--from", "cosmic-ray==8.7.0"]
"""Not among this project's requirements: it has a database and a web server of its own."""
OPERATORS = (
    r"core/ReplaceBinaryOperator_(?!Add_Sub|Sub_Add|Mul_Div|Div_Mul|FloorDiv_Mul|Mod_Mul|Pow_Mul)",
    r"core/ReplaceComparisonOperator_(?!Lt_LtE|LtE_Lt|Gt_GtE|GtE_Gt|Eq_NotEq|NotEq_Eq|Is_IsNot|IsNot_Is)",
    r"core/ReplaceUnaryOperator_(?!USub_UAdd|Delete_Not)",
)
"""Operators that are left out: one change of an operator is enough, and `|` stands in types."""
CONFIGURATION = """
[cosmic-ray]
module-path = "{path}"
timeout = 300.0
excluded-modules = []
test-command = "{python} -m pytest -x -q --no-header -p no:cacheprovider {tests}"
distributor.name = "local"
filters.operators-filter.exclude-operators = {operators}
"""


def main(module: str) -> None:
    """Change the module, a path or a dotted name, and print what the tests did not notice."""
    path = find(module)
    tests = find_tests(path)
    print(f"{path}: {' '.join(map(str, tests))}", flush=True)  # noqa: T201
    with tempfile.TemporaryDirectory() as folder:
        configuration, session = f"{folder}/configuration.toml", f"{folder}/session.sqlite"
        values = {"python": sys.executable, "tests": " ".join(map(str, tests)), "operators": [*OPERATORS]}
        Path(configuration).write_text(CONFIGURATION.format(path=path, **values))
        for command in (
            ("cosmic-ray", "baseline", configuration),
            ("cosmic-ray", "init", configuration, session),
            ("cr-filter-operators", session, configuration),
            ("cosmic-ray", "exec", configuration, session),
            ("cr-report", "--surviving-only", "--show-diff", session),
        ):
            subprocess.run([*COSMIC_RAY, *command], cwd=ROOT, check=True)


def find(module: str) -> Path:
    """Return the path of a module below the root, from a path or from a dotted name."""
    names = [module, f"{module.replace('.', '/')}.py"]
    candidates = [Path(room, name) for room in ("", "client", "serving", "training") for name in names]
    return next(path for path in candidates if (ROOT / path).is_file())


def find_tests(path: Path) -> list[Path]:
    """Return the files of tests at the module's mirrored path, and those that name the module."""
    room, package, *folders, name = path.with_suffix("").parts
    mirror = Path("core" if package == "digit_core" else room, *folders, f"test_{name.strip('_')}.py")
    dotted, tests = ".".join(path.with_suffix("").parts[1:]), ROOT / "tests"
    return [
        test.relative_to(ROOT)
        for test in sorted(tests.rglob("test_*.py"))
        if test == tests / mirror or dotted in test.read_text()
    ]


if __name__ == "__main__":
    main(sys.argv[1])
