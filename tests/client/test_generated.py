"""Blocking clients: generated from the asyncio ones, and alike in what they offer."""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Unpack

import pytest

import digit_client
from digit_client import AsyncClient, AsyncModelServerClient, CallOptions, Client, ModelServerClient

CLIENT = Path(digit_client.__file__).parent.parent
CONNECTION = Path("digit_core", "tfserving", "connection.py")


def test_sync_modules_are_what_the_script_generates(tmp_path: Path) -> None:
    subprocess.run([sys.executable, CLIENT / "generate_sync.py", tmp_path], check=True)
    modules = [path.relative_to(CLIENT) for path in (CLIENT / "digit_client" / "_sync").glob("*.py")]
    generated = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.py")}
    assert generated == {path: (CLIENT / path).read_text() for path in (*modules, CONNECTION)}


@pytest.mark.parametrize(
    ("blocking", "asynchronous"), [(Client, AsyncClient), (ModelServerClient, AsyncModelServerClient)]
)
def test_clients_have_same_methods_with_typed_options(blocking: type, asynchronous: type) -> None:
    names = {name for name in dir(blocking) if not name.startswith("_")}
    assert names == {name for name in dir(asynchronous) if not name.startswith("_")}
    for name in names:
        if inspect.isfunction(getattr(blocking, name)):
            parameters = inspect.signature(getattr(blocking, name)).parameters
            assert parameters == inspect.signature(getattr(asynchronous, name)).parameters
            assert all(
                parameter.kind != parameter.VAR_KEYWORD or parameter.annotation == Unpack[CallOptions]
                for parameter in parameters.values()
            )
