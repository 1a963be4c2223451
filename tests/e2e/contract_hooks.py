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
    """Say each option once, in the query or in the body, and a version or a label: a request has no more."""
    body = case.body if isinstance(case.body, dict) else {}
    for name in body.keys() & case.query.keys():
        del case.query[name]
    if "version" in case.query or "version" in body:
        case.query.pop("label", None)
        body.pop("label", None)
