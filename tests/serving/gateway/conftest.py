from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from flask.testing import FlaskClient

from digit_client.protos import PredictRequest, PredictResponse
from digit_serving.gateway.app import create_app
from digit_serving.gateway.settings import Settings


@pytest.fixture(scope="session")
def http(model_server: str) -> FlaskClient:
    """The app before the real model server, called without a socket."""
    return create_app(Settings(model_server=model_server, labels=())).test_client()


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
    return create_app(Settings(model_server=faulty.target, deadline=0.5)).test_client()
