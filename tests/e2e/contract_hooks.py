"""Schemathesis hooks: generators and constraints that OpenAPI can't express."""

import base64
from typing import Any

import cv2
import numpy as np
import schemathesis
from hypothesis import strategies as st

from digit_core.images import to_png
from digit_training.data import SAMPLE
from tests.conftest import Digits
from tests.serving.gateway.helpers import npy

with np.load(SAMPLE) as sample:
    THREE = Digits(sample["x_train"], sample["y_train"]).one(3)


def picture(size: int) -> bytes:
    """Return a PNG of a digit, `size` pixels high."""
    return to_png(np.asarray(cv2.resize(THREE, (size, size)), np.uint8))


ARRAYS = st.integers(1, 3).map(lambda count: np.stack([THREE] * count))
FILES = st.integers(28, 100).map(picture)

schemathesis.openapi.format("byte", FILES.map(lambda file: base64.b64encode(file).decode()))
schemathesis.openapi.format("binary", FILES)
schemathesis.openapi.media_type("application/octet-stream", FILES | ARRAYS.map(npy))


@schemathesis.hook
def before_call(_context: schemathesis.HookContext, case: Any, _arguments: Any) -> None:
    """Drop the label beside a version: a request may have only one of the two."""
    if "version" in case.query:
        case.query.pop("label", None)
