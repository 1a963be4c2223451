"""Generate the blocking clients, `digit_client/_sync`, from the asyncio ones, `digit_client/_async`.

python client/generate_sync.py [FOLDER]
"""

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import unasync

PACKAGE = Path(__file__).parent / "digit_client"

REPLACEMENTS = {
    "AsyncClient": "Client",
    "AsyncConnection": "Connection",
    "AsyncImageClient": "ImageClient",
    "AsyncModelServerClient": "ModelServerClient",
    "AsyncResults": "Results",
    "_async": "_sync",
    "aclose": "close",
    "aiter_bytes": "iter_bytes",
    "async_blocking": "blocking",
    "async_collect": "collect",
    "async_run": "run",
    "async_send_many": "send_many",
    "async_sleep": "sleep",
    "async_time_limit": "time_limit",
    "connect_async": "connect",
    "run_async": "run",
}
"""Names and their blocking counterparts, beside those that unasync knows."""
_DOCSTRING_REPLACEMENTS = {"async with": "with", "await ": "", '"""asyncio ': '"""Blocking ', "Async": ""}
_HEADER = "# Generated from _async by client/generate_sync.py: change the source, then run the script.\n"


def generate(target: Path) -> None:
    """Write the blocking modules into the folder `target`, which is replaced."""
    with TemporaryDirectory() as folder:
        source = Path(folder, "_async")
        shutil.copytree(PACKAGE / "_async", source, ignore=shutil.ignore_patterns("__pycache__"))
        rule = unasync.Rule("/_async/", "/_sync/", REPLACEMENTS)
        unasync.unasync_files([str(path) for path in source.glob("*.py")], [rule])
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(Path(folder, "_sync"), target)
    for path in target.glob("*.py"):
        path.write_text(_HEADER + _in_docstrings(path.read_text()))
    _run_ruff("check", "--quiet", "--fix", "--select=I,SIM117", target)
    _run_ruff("format", "--quiet", target)


def _in_docstrings(text: str) -> str:
    """Replace words that unasync leaves alone, in docstrings and comments: no code has them any more."""
    for word, replacement in _DOCSTRING_REPLACEMENTS.items():
        text = text.replace(word, replacement)
    return text


def _run_ruff(command: str, *arguments: str | Path) -> None:
    config = PACKAGE.parents[1] / "pyproject.toml"
    subprocess.run([sys.executable, "-m", "ruff", command, f"--config={config}", *arguments], check=True)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if sys.argv[1:] else PACKAGE / "_sync")
