from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from flask.testing import FlaskClient
from numpy.typing import NDArray

from digit_client.tfserving import codec
from digit_client.tfserving.protos import DT_FLOAT, PredictRequest, PredictResponse
from digit_serving.gateway.asgi import Receive, Scope, Send
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop

FIVE = Path(__file__).parents[3] / "docs" / "five.jpg"
"""A photograph."""


@pytest.fixture(scope="session")
def http(model_server: str) -> FlaskClient:
    """The app before the real model server, called without a socket."""
    return greenlet_loop.client(Settings(model_server=model_server, labels=()))


def answer(probabilities: NDArray[np.float32]) -> PredictResponse:
    """What a model server says that has come to these, float32 [n, 10]."""
    response = PredictResponse()
    tensor = response.outputs[codec.OUTPUT]
    tensor.dtype = DT_FLOAT
    tensor.tensor_content = probabilities.tobytes()
    for size in probabilities.shape:
        tensor.tensor_shape.dim.add(size=size)
    return response


def sevens(request: PredictRequest, _context: grpc.ServicerContext) -> PredictResponse:
    """What a model server says that takes every image for a seven."""
    count = request.inputs["images"].tensor_shape.dim[0].size
    return answer(np.eye(10, dtype=np.float32)[[7] * count])


async def echo(_: Scope, receive: Receive, send: Send) -> None:
    """An ASGI application that answers what it was sent."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class FaultyModelServer:
    """A model server that answers predictions as the test tells it."""

    def __init__(self) -> None:
        self.answer: Callable[[PredictRequest, grpc.ServicerContext], PredictResponse]
        self.metadata: dict[str, Any] = {}
        self.calls = 0
        self._server = grpc.server(ThreadPoolExecutor(4))
        method = grpc.unary_unary_rpc_method_handler(
            self._predict, PredictRequest.FromString, PredictResponse.SerializeToString
        )
        service = grpc.method_handlers_generic_handler(
            "tensorflow.serving.PredictionService", {"Predict": method}
        )
        self._server.add_generic_rpc_handlers((service,))
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def _predict(self, request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        self.calls += 1
        self.metadata = dict(context.invocation_metadata())
        return self.answer(request, context)

    def close(self) -> None:
        self._server.stop(0).wait()


@pytest.fixture
def faulty() -> Iterator[FaultyModelServer]:
    server = FaultyModelServer()
    yield server
    server.close()


@pytest.fixture
def faulty_http(faulty: FaultyModelServer) -> FlaskClient:
    """The app before the faulty model server, with a deadline of half a second."""
    return greenlet_loop.client(Settings(model_server=faulty.target, deadline=0.5))
