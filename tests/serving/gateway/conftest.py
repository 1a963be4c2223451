"""Fixtures of the gateway's tests: its application in this process, before a stub or a real model server."""

import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from flask.testing import FlaskClient

from digit_core.tfserving.protos import PredictRequest, PredictResponse
from digit_serving.gateway.auth import KeyFile
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.serving.gateway.helpers import StartGateway
from tests.serving.gateway.stub_model_server import StubModelServer, predict_sevens


@pytest.fixture(scope="module", autouse=True)
def no_labels() -> Iterator[None]:
    """Let gateways ask the newest version by default: the model servers of most tests have no labels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIGITS_DEFAULT_LABEL", "")
        yield


@pytest.fixture(scope="session")
def http(model_server: str) -> FlaskClient:
    """Test client of the gateway in front of a real model server."""
    return greenlet_loop.client(Settings(model_server=model_server, default_label=""))


@pytest.fixture(scope="session")
def offline_http() -> FlaskClient:
    """Test client of a gateway whose model server is unreachable."""
    return greenlet_loop.client(Settings(model_server="127.0.0.1:1", deadline=0.5))


@pytest.fixture
def start_gateway(stub: StubModelServer) -> StartGateway:
    """Function that creates a gateway of the stub with these settings and returns a test client of it."""
    return lambda **settings: greenlet_loop.client(Settings(model_server=stub.target, **settings))


@pytest.fixture
def stub() -> Iterator[StubModelServer]:
    server = StubModelServer()
    yield server
    server.close()


@pytest.fixture
def release(stub: StubModelServer) -> Iterator[threading.Event]:
    """Event for which the stub's predictions wait, at most for ten seconds."""
    event = threading.Event()

    def wait(request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        event.wait(10)
        return predict_sevens(request, context)

    stub.answer = wait
    yield event
    event.set()


@pytest.fixture
def stub_http(start_gateway: StartGateway) -> FlaskClient:
    """Test client of the gateway in front of the stub."""
    return start_gateway()


@pytest.fixture
def key_file(tmp_path: Path) -> KeyFile:
    """File of API keys that does not exist."""
    return KeyFile(tmp_path / "keys")
