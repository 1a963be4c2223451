"""Requests, stand-ins and checks that the test modules of the gateway share."""

import base64
import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from flask.testing import FlaskClient
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families
from werkzeug.test import TestResponse

from digit_core.images import to_png
from digit_serving.gateway.bridge import Receive, Scope, Send
from digit_serving.gateway.request import RequestContext

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


def assert_problem(response: TestResponse, status: int, code: str) -> dict[str, Any]:
    """Fail unless the response is this problem; return its document."""
    assert response.status_code == status, response.text
    assert response.content_type == "application/problem+json"
    document: dict[str, Any] = response.get_json(force=True)
    assert document["code"] == code
    assert document["status"] == status
    assert document["request_id"] == response.headers["X-Request-ID"]
    assert re.fullmatch(r"[A-Z].*\.", document["detail"], re.DOTALL), "detail is a sentence"
    return document


class MetricsDelta:
    """Difference of a gateway's metrics since this object was created."""

    def __init__(self, http: FlaskClient) -> None:
        self._http = http
        self._before = self._samples()

    def __call__(self, name: str, **labels: str) -> float:
        """Return the increase of the samples with this name and these labels, summed."""
        return sum(
            value - self._before.get(key, 0)
            for key, value in self._samples().items()
            if key[0] == name and labels.items() <= set(key[1])
        )

    def _samples(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        families = text_string_to_metric_families(self._http.get("/metrics").text)
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }


def probe(**settings: object) -> tuple[int, str]:
    """Return the exit status and the errors of a probe with these settings."""
    environment = {f"DIGITS_{name.upper()}": str(value) for name, value in settings.items()}
    command = [sys.executable, "-m", "digit_serving.gateway.probe"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return done.returncode, done.stderr
