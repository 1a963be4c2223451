"""ModelServerClient against a gRPC server in this process."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from digit_client import (
    ModelNotFoundError,
    ModelServerClient,
    NoDigitError,
    OverloadedError,
    RetryPolicy,
)
from digit_client.images import to_png
from tests.client.linear_model_server import LinearModelServer


@pytest.fixture(scope="module")
def server(digits: Any) -> Iterator[LinearModelServer]:
    with LinearModelServer(digits.images[:1000], digits.labels[:1000]) as server:
        yield server


@pytest.fixture
def client(server: LinearModelServer) -> Iterator[ModelServerClient]:
    retries = RetryPolicy(max_attempts=3, initial_backoff=0.001)
    with ModelServerClient(server.target, retries=retries) as client:
        yield client


def test_predict_every_source_returns_same_prediction(
    client: ModelServerClient, digits: Any, tmp_path: Path
) -> None:
    image = digits.one(3)
    path = tmp_path / "three.png"
    path.write_bytes(to_png(image))
    predictions = {client.predict(source) for source in (image, path, path.read_bytes())}
    assert [prediction.digit for prediction in predictions] == [3]


def test_predict_many_several_batches_returns_predictions_in_order(
    client: ModelServerClient, server: LinearModelServer, digits: Any
) -> None:
    calls = server.calls
    predictions = client.predict_many(digits.images[:300])
    assert server.calls == calls + 2
    assert np.mean([prediction.digit for prediction in predictions] == digits.labels[:300]) > 0.85


def test_predict_many_blank_image_raises_no_digit_with_index(client: ModelServerClient, digits: Any) -> None:
    with pytest.raises(NoDigitError) as raised:
        client.predict_many([digits.one(1), np.zeros((28, 28), np.uint8)])
    assert raised.value.index == 1


def test_predict_unknown_version_or_label_raises_model_not_found(
    client: ModelServerClient, digits: Any
) -> None:
    assert client.predict(digits.one(1), version=1).model_version == 1
    with pytest.raises(ModelNotFoundError):
        client.predict(digits.one(1), version=99)
    with pytest.raises(ModelNotFoundError):
        client.predict(digits.one(1), label="nonsense")
    with pytest.raises(ValueError, match="not both"):
        client.predict(digits.one(1), version=1, label="stable")


def test_predict_overloaded_server_is_retried(
    client: ModelServerClient, server: LinearModelServer, digits: Any
) -> None:
    server.failures = [grpc.StatusCode.RESOURCE_EXHAUSTED] * 2
    assert client.predict(digits.one(1)).digit == 1
    server.failures = [grpc.StatusCode.RESOURCE_EXHAUSTED] * 3
    with pytest.raises(OverloadedError):
        client.predict(digits.one(1))


def test_client_without_target_takes_environment(
    server: LinearModelServer, digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITS_MODEL_SERVER", server.target)
    with ModelServerClient() as client:
        assert client.predict(digits.one(1)).digit == 1
