"""Fuzz targets: functions that take any bytes and may raise only documented errors."""

from collections.abc import Callable
from importlib import import_module

_MODULES = {
    "pictures": ("image", "body"),
    "documents": ("response", "config", "card", "query", "feedback"),
    "edge": ("http",),
    "drop_in": ("rest", "tensor"),
}
TARGETS = {name: module for module, names in _MODULES.items() for name in names}
"""Module of each target."""


def load(name: str) -> Callable[[bytes], None]:
    """Import a target."""
    target: Callable[[bytes], None] = getattr(import_module(f"tests.fuzz.{TARGETS[name]}"), name)
    return target
