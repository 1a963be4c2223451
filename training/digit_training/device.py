"""Compute device: its name, and how it gives the same results twice."""

import tensorflow as tf


def name() -> str:
    """Return `CPU`, or `GPU: ` and the model of the first GPU that TensorFlow sees."""
    for gpu in tf.config.list_physical_devices("GPU"):
        return f"GPU: {tf.config.experimental.get_device_details(gpu).get('device_name', gpu.name)}"
    return "CPU"


def enable_determinism() -> None:
    """Sum in a fixed order on a GPU, so that a seed gives the same model each time.

    On a CPU, the order is fixed anyway.
    """
    if tf.config.list_physical_devices("GPU"):
        tf.config.experimental.enable_op_determinism()
