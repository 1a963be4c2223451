"""What Schemathesis has to be told beyond the description."""

import base64
import io
from typing import Any

import numpy as np
import schemathesis
from hypothesis import strategies as st

from digit_client.images import to_png


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


ARRAYS = st.integers(1, 3).map(lambda count: np.stack([np.eye(28, dtype=np.uint8) * 255] * count))


def line(size: int) -> bytes:
    """From corner to corner, as wide as a pen's: a finer one would be the edge of something."""
    return to_png(255 * (np.tri(size, k=2, dtype=np.uint8) - np.tri(size, k=-3, dtype=np.uint8)))


FILES = st.integers(28, 100).map(line)


schemathesis.openapi.format("byte", FILES.map(lambda file: base64.b64encode(file).decode()))
schemathesis.openapi.format("binary", FILES)
schemathesis.openapi.media_type("image/*", FILES, aliases=["application/octet-stream"])
schemathesis.openapi.media_type("application/x-npy", ARRAYS.map(npy))


@schemathesis.hook
def before_call(_context: schemathesis.HookContext, case: Any, _arguments: Any) -> None:
    """A version and a label exclude each other, which OpenAPI can't say."""
    if "version" in case.query:
        case.query.pop("label", None)
