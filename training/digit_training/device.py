"""Compute device of the Keras backend: its name, and its determinism."""

from importlib import import_module

import keras


def name() -> str:
    """Return `CPU`, or `GPU: ` and the model of the first GPU that Keras's backend sees."""
    gpu = {"tensorflow": _tensorflow_gpu, "jax": _jax_gpu, "torch": _torch_gpu}[keras.backend.backend()]()
    return f"GPU: {gpu}" if gpu else "CPU"


def enable_determinism() -> None:
    """Make TensorFlow sum in a fixed order on a GPU, so that a seed gives the same model each time.

    On a CPU, the order is fixed anyway.
    """
    if keras.backend.backend() == "tensorflow" and _tensorflow_gpu():
        import_module("tensorflow").config.experimental.enable_op_determinism()


def _tensorflow_gpu() -> str | None:
    config = import_module("tensorflow").config
    for gpu in config.list_physical_devices("GPU"):
        return str(config.experimental.get_device_details(gpu).get("device_name", gpu.name))
    return None


def _jax_gpu() -> str | None:
    device = import_module("jax").devices()[0]
    return None if device.platform == "cpu" else str(device.device_kind)


def _torch_gpu() -> str | None:
    cuda = import_module("torch").cuda
    return str(cuda.get_device_name()) if cuda.is_available() else None
