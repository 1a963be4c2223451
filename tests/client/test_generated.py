"""Blocking clients: generated from the asyncio ones, and alike in what they offer."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import digit_client
from digit_client import AsyncClient, AsyncModelServerClient, Client, ModelServerClient

PACKAGE = Path(digit_client.__file__).parent


def test_sync_modules_are_what_the_script_generates(tmp_path: Path) -> None:
    generated = tmp_path / "_sync"
    subprocess.run([sys.executable, PACKAGE.parent / "generate_sync.py", generated], check=True)
    texts = {path.name: path.read_text() for path in generated.glob("*.py")}
    assert texts == {path.name: path.read_text() for path in (PACKAGE / "_sync").glob("*.py")}


@pytest.mark.parametrize(
    ("blocking", "asynchronous"), [(Client, AsyncClient), (ModelServerClient, AsyncModelServerClient)]
)
def test_clients_have_same_methods_with_visible_options(blocking: type, asynchronous: type) -> None:
    names = {name for name in dir(blocking) if not name.startswith("_")}
    assert names == {name for name in dir(asynchronous) if not name.startswith("_")}
    for name in names:
        if inspect.isfunction(getattr(blocking, name)):
            parameters = inspect.signature(getattr(blocking, name)).parameters
            assert parameters == inspect.signature(getattr(asynchronous, name)).parameters
            assert all(parameter.kind != parameter.VAR_KEYWORD for parameter in parameters.values())
