"""What a fit runs on."""

import os
from functools import cache
from importlib import import_module
from pathlib import Path

import keras


def name() -> str:
    """`CPU`, or `GPU: ` and the card's name, as the backend of Keras sees it."""
    gpu = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[keras.backend.backend()]()
    return f"GPU: {gpu}" if gpu else "CPU"


def make_repeatable() -> None:
    """Has a GPU add in a fixed order, as a CPU does, so that a seed gives the same model each time."""
    if keras.backend.backend() == "tensorflow" and _tensorflow():
        import_module("tensorflow").config.experimental.enable_op_determinism()


@cache
def hush_xla() -> None:
    """XLA tells stderr when it has compiled something for the first time: here nobody hears it."""
    tensorflow = import_module("tensorflow")
    stderr = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        tensorflow.function(lambda: tensorflow.constant(0), jit_compile=True)()
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _tensorflow() -> str | None:
    config = import_module("tensorflow").config
    for gpu in config.list_physical_devices("GPU"):
        return str(config.experimental.get_device_details(gpu).get("device_name", gpu.name))
    return None


def _jax() -> str | None:
    device = import_module("jax").devices()[0]
    return None if device.platform == "cpu" else str(device.device_kind)


def _torch() -> str | None:
    cuda = import_module("torch").cuda
    return str(cuda.get_device_name()) if cuda.is_available() else None
