"""Verification of a version: it is loaded, and answers its warm-up requests, in a process of its own.

TensorFlow Serving reports a version without weights as available, and exits if a version fails to load at
its start. Only verified versions are named to a model server. The process runs this module; exit
status 1 means that the version fails, for the reason in the last line of standard error.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from digit_core.artifact.versions import ArtifactError
from digit_core.errors import how_to_install

_NO_TENSORFLOW = 3
"""Exit status without TensorFlow, which only this process imports."""
_SECONDS = 300.0
"""Time limit: the models folder is locked meanwhile, and others wait for the lock for twice as long."""
_NAMED_ERROR = re.compile(r"\w+Error: ")
_STACK = re.compile(
    r"Graph execution error|Exception encountered|Detected at|File |<stack|\[\[|Arguments rec|• "
)
_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    # A fit in the parent process may hold all of the GPU's memory.
    "CUDA_VISIBLE_DEVICES": "-1",
}


def verify(version: Path) -> None:
    """Load a version's folder and answer its warm-up requests. Raise ArtifactError with the reason.

    Raise InterruptedError if a signal ends the process: it says nothing about the version.
    """
    command = [sys.executable, "-m", "digit_core.artifact.verification", str(version)]
    try:
        done = subprocess.run(
            command,
            env=os.environ | _ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise ArtifactError(f"{version} can't be served: it did not answer within {_SECONDS:g} s") from None
    if done.returncode == 0:
        return
    if done.returncode in (-signal.SIGINT, -signal.SIGTERM):
        raise InterruptedError(f"the verification of {version} was interrupted")
    message = (done.stderr.strip().splitlines() or [f"the process ended with status {done.returncode}"])[-1]
    if done.returncode == _NO_TENSORFLOW:
        raise ArtifactError(
            f"{version} can't be verified without TensorFlow ({message}); {how_to_install('training')}"
        )
    raise ArtifactError(f"{version} can't be served: {message}")


def reason_of(error: Exception) -> str:
    """Return the most informative line of a TensorFlow error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if "key=pyfunc" in str(error):
        return "it calls Python code (tf.py_function), which a model server can't run"
    # An error in a graph begins with its kind and the stack, and ends with the node.
    told = [line for line in lines if not _STACK.match(line)] or [type(error).__name__]
    return next((line for line in told if _NAMED_ERROR.match(line)), told[0])


def _warm_up(folder: str) -> None:
    """Load the SavedModel in a folder, and send it its warm-up requests. Raise the error of a failure."""
    import tensorflow as tf
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    signatures = tf.saved_model.load(folder).signatures
    count = 0
    for record in tf.data.TFRecordDataset(f"{folder}/assets.extra/tf_serving_warmup_requests"):
        request = PredictionLog.FromString(record.numpy()).predict_log.request
        name = request.model_spec.signature_name or "serving_default"
        inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
        for key, values in signatures[name](**inputs).items():
            if values.dtype.is_floating and not bool(tf.reduce_all(tf.math.is_finite(values))):
                raise ValueError(f"the output {key} of the signature {name} is not finite")
        count += 1
    if not count:
        raise ValueError("there are no warm-up requests")


if __name__ == "__main__":
    try:
        _warm_up(sys.argv[1])
    except ImportError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(_NO_TENSORFLOW)
    # TensorFlow does not document its exceptions for damaged or incompatible SavedModels.
    except Exception as error:
        sys.exit(f"\n{reason_of(error)}")
