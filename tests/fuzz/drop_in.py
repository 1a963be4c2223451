"""Targets of the drop-in for TensorFlow Serving, which import TensorFlow."""

import json
from contextlib import nullcontext, suppress
from types import SimpleNamespace
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.types_pb2 import DT_BOOL, DT_FLOAT, DT_INT64, DT_STRING
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo
from werkzeug.test import Client

from digit_serving.errors import ServingError
from digit_serving.model_server.budget import Budget, inputs_size
from digit_serving.model_server.flags import Options
from digit_serving.model_server.rest import RestApi
from digit_serving.model_server.servable import decode, encode

_BUDGET = Budget(4_000_000)
_INPUTS = {
    "": {"pixels": TensorInfo(dtype=DT_FLOAT)},
    "many": {
        "text": TensorInfo(dtype=DT_STRING),
        "number": TensorInfo(dtype=DT_INT64),
        "flag": TensorInfo(dtype=DT_BOOL),
    },
}


class _Core:
    """Core whose signatures answer with their inputs."""

    metrics, budget = SimpleNamespace(request=lambda *_: nullcontext(), page=lambda: ""), _BUDGET

    def inputs(self, spec: Any) -> dict[str, TensorInfo]:
        return _INPUTS["many" if spec.signature_name else ""]

    def run(self, _: Any, arrays: dict[str, Any], time_left: Any) -> dict[str, Any]:
        return arrays


_REST = Client(RestApi(Options(), _Core(), "/metrics"))  # type: ignore[arg-type]


def rest(data: bytes) -> None:
    """Send a body to the REST API."""
    answer = _REST.post("/v1/models/digits:predict", data=data)
    assert answer.status_code in (200, 400, 501), answer.text
    assert json.loads(answer.get_data()).keys() <= {"predictions", "outputs", "error"}


def tensor(data: bytes) -> None:
    """Decode a tensor, and encode it again in both forms."""
    with suppress(DecodeError, ServingError):
        proto = TensorProto.FromString(data)
        _BUDGET.check(inputs_size({"x": proto}))
        array = decode("x", proto)
        for as_content in (True, False) if array.dtype != object else ():
            again = TensorProto()
            encode(array, again, as_content)
            # Any NaN equals another one: typed values lose whether it signals.
            np.testing.assert_array_equal(decode("x", again), array)
