"""Blocking and asyncio connections: against a gRPC server in this process."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from digit_client import (
    DeadlineExceededError,
    DigitError,
    ModelNotFoundError,
    OverloadedError,
    ServiceError,
    UnavailableError,
)
from digit_client.tfserving.codec import ModelRef
from digit_client.tfserving.model_server import AsyncModelServer, ModelServer, VersionStatus
from tests.client.linear_model_server import LinearModelServer

MODEL = ModelRef()


class BlockingAsyncModelServer:
    """AsyncModelServer with ModelServer's blocking methods, so that a test covers both."""

    def __init__(self, target: str) -> None:
        self._runner = asyncio.Runner()
        self._server = self._runner.run(self._connect(target))

    async def _connect(self, target: str) -> AsyncModelServer:
        return AsyncModelServer(target)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._server, name)
        return lambda *arguments, **options: self._runner.run(method(*arguments, **options))

    def close(self) -> None:
        self._runner.run(self._server.close())
        self._runner.close()


@pytest.fixture(scope="module")
def server(digits: Any) -> Iterator[LinearModelServer]:
    with LinearModelServer(digits.images[:1000], digits.labels[:1000]) as server:
        yield server


@pytest.fixture(params=[ModelServer, BlockingAsyncModelServer])
def connection(request: pytest.FixtureRequest, server: LinearModelServer) -> Iterator[Any]:
    connection = request.param(server.target)
    yield connection
    connection.close()


@pytest.mark.parametrize("form", ["images", "pixels"])
def test_predict_returns_predictions_in_order(connection: Any, digits: Any, form: str) -> None:
    images = np.stack([digits.one(label) for label in range(10)])
    batch = images if form == "images" else images.reshape(10, 784).astype(np.float32) / 255
    predictions = connection.predict(batch, MODEL, timeout=5)
    assert [prediction.digit for prediction in predictions] == list(range(10))
    assert {prediction.model_version for prediction in predictions} == {1}


def test_versions_returns_statuses(connection: Any) -> None:
    assert connection.versions(MODEL, timeout=5) == [VersionStatus(1, "AVAILABLE", "")]


def test_resolve_returns_version(connection: Any) -> None:
    assert connection.resolve(MODEL, timeout=5) == 1


@pytest.mark.parametrize(
    "model", [ModelRef("digits", version=9), ModelRef("digits", label="stable")], ids=str
)
def test_predict_and_resolve_unknown_version_or_label_raise_model_not_found(
    connection: Any, model: ModelRef
) -> None:
    with pytest.raises(ModelNotFoundError):
        connection.predict(np.zeros((1, 28, 28), np.uint8), model, timeout=5)
    with pytest.raises(ModelNotFoundError):
        connection.resolve(model, timeout=5)


@pytest.mark.parametrize(
    ("code", "error_class"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, OverloadedError),
        (grpc.StatusCode.INVALID_ARGUMENT, ServiceError),
        (grpc.StatusCode.INTERNAL, ServiceError),
    ],
    ids=["RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "INTERNAL"],
)
def test_predict_error_status_is_raised_without_retry(
    connection: Any, server: LinearModelServer, code: grpc.StatusCode, error_class: type[DigitError]
) -> None:
    calls, server.failures = server.calls, [code]
    with pytest.raises(ServiceError, match="injected") as raised:
        connection.predict(np.zeros((1, 28, 28), np.uint8), MODEL, timeout=5)
    assert type(raised.value) is error_class
    assert raised.value.reason == code.name
    assert server.calls == calls + 1


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED], ids=str)
def test_predict_unavailable_status_is_retried(
    connection: Any, server: LinearModelServer, code: grpc.StatusCode
) -> None:
    calls, server.failures = server.calls, [code, code]
    assert len(connection.predict(np.zeros((1, 28, 28), np.uint8), MODEL, timeout=5)) == 1
    assert server.calls == calls + 3


@pytest.mark.parametrize("connect", [ModelServer, BlockingAsyncModelServer])
def test_versions_refused_connection_raises_unavailable(connect: Callable[[str], Any]) -> None:
    connection = connect("127.0.0.1:1")
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
        connection.versions(MODEL, timeout=5)
    connection.close()


def test_versions_slow_server_raises_deadline_exceeded(
    connection: Any, server: LinearModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "delay", 0.3)
    with pytest.raises(DeadlineExceededError):
        connection.versions(MODEL, timeout=0.1)
