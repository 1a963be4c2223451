"""Verification of a version: it is loaded, and answers its warm-up requests, in a process of its own.

TensorFlow Serving reports a version as available whose weights are missing, and ends if a version fails to
load at its start. Only verified versions are named to a model server.
"""

import os
import subprocess
import sys
from pathlib import Path

from digit_client.artifact._warm_up import NO_TENSORFLOW
from digit_client.artifact.versions import ArtifactError

_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    # A fit in the parent process may hold all of the GPU's memory.
    "CUDA_VISIBLE_DEVICES": "-1",
}


def verify(version: Path) -> None:
    """Load a version's folder and answer its warm-up requests. Raise ArtifactError with the reason."""
    command = [sys.executable, "-m", "digit_client.artifact._warm_up", str(version)]
    done = subprocess.run(
        command, env=os.environ | _ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode == 0:
        return
    reason = (done.stderr.strip().splitlines() or [f"the process ended with status {done.returncode}"])[-1]
    if done.returncode == NO_TENSORFLOW:
        raise ArtifactError(
            f"{version} can't be verified without TensorFlow ({reason}); "
            "install it in a clone of digit-serving: pip install '.[training]'"
        )
    raise ArtifactError(f"{version} can't be served: {reason}")
