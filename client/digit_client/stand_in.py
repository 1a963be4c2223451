"""A stand-in for TensorFlow's top module, which takes seconds and hundreds of megabytes to import."""

from importlib.util import find_spec
from types import ModuleType


def tensorflow() -> ModuleType:
    """An empty module that knows where TensorFlow's files are.

    As `sys.modules["tensorflow"]` it lets the modules below it be imported without `tensorflow/__init__`.
    """
    spec = find_spec("tensorflow")
    module = ModuleType("tensorflow")
    module.__path__ = list(spec.submodule_search_locations or ()) if spec else []
    return module
