"""Fixtures of the gateway's tests: its application in this process, before a stub or a real model server."""

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from flask.testing import FlaskClient
from numpy.typing import NDArray

from digit_core.images import to_png
from digit_core.tfserving.protos import PredictRequest, PredictResponse
from digit_serving.gateway.auth import KeyFile
from digit_serving.gateway.bridge import Receive, Scope, Send
from digit_serving.gateway.request import RequestContext
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.serving.gateway.stub_model_server import StubModelServer, predict_sevens

FIVE = Path(__file__).parents[3] / "docs" / "five.jpg"
"""Photograph of a handwritten five."""
IMAGE = np.eye(28, dtype=np.uint8) * 255
"""Diagonal stroke, uint8 [28, 28]."""

StartGateway = Callable[..., FlaskClient]


class ManualClock:
    """Clock in seconds that only the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def npy(array: NDArray[Any]) -> bytes:
    """Return the array as a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def request_context(request_id: str = "id", waited: float = 0.0, deadline: float = 60.0) -> RequestContext:
    """Create the context of a prediction request that arrived `waited` seconds ago, of `deadline` in all."""
    arrived = time.monotonic() - waited
    end = arrived + deadline
    return RequestContext(request_id, "/v1/predict", "POST", arrived, arrived, arrived + deadline / 2, end)


def predict(http: FlaskClient, *pictures: NDArray[Any], query: str = "", request_id: str = "id-1") -> Any:
    """Send pictures as files, by default a diagonal stroke; return the answer."""
    files = [base64.b64encode(to_png(picture)).decode() for picture in pictures or (IMAGE,)]
    headers = {"X-Request-ID": request_id}
    response = http.post(f"/v1/predict{query}", json={"images": files}, headers=headers)
    assert response.status_code == 200, response.text
    return response.get_json()


async def echo(_: Scope, receive: Receive, send: Send) -> None:
    """ASGI application that sends the request's body back."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def write_traffic(folder: Path, **shares: float) -> Path:
    """Write models.traffic.json with the shares of the model digits, and return its path."""
    file = folder / "models.traffic.json"
    file.write_text(json.dumps({"digits": shares}))
    return file


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
