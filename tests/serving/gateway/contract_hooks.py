"""Schemathesis hooks: generators and constraints that OpenAPI can't express."""

import base64
from typing import Any

import numpy as np
import schemathesis
from hypothesis import strategies as st

from digit_client.images import to_png
from tests.serving.gateway.conftest import IMAGE, npy


def diagonal_line(size: int) -> bytes:
    """Return a PNG of a line as wide as a pen's; a thinner one would look like an object's edge."""
    return to_png(255 * (np.tri(size, k=2, dtype=np.uint8) - np.tri(size, k=-3, dtype=np.uint8)))


ARRAYS = st.integers(1, 3).map(lambda count: np.stack([IMAGE] * count))
FILES = st.integers(28, 100).map(diagonal_line)

schemathesis.openapi.format("byte", FILES.map(lambda file: base64.b64encode(file).decode()))
schemathesis.openapi.format("binary", FILES)
schemathesis.openapi.media_type("image/*", FILES, aliases=["application/octet-stream"])
schemathesis.openapi.media_type("application/x-npy", ARRAYS.map(npy))


@schemathesis.hook
def before_call(_context: schemathesis.HookContext, case: Any, _arguments: Any) -> None:
    """Drop the label beside a version: a request may have only one of the two."""
    if "version" in case.query:
        case.query.pop("label", None)
