"""Blocking and asyncio connections: against a gRPC server in this process."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import grpc
import numpy as np
import pytest

from digit_core.artifact.task_card import DIGITS, TaskCard
from digit_core.errors import (
    AuthenticationError,
    DigitError,
    ModelNotFoundError,
    OverloadedError,
    ServiceError,
    UnavailableError,
)
from digit_core.tfserving.calls import VersionStatus
from digit_core.tfserving.codec import ModelRef
from digit_core.tfserving.connection import AsyncConnection, Connection
from tests.core.blocking import BlockingAsync
from tests.core.linear_model_server import LinearModelServer

MODEL = ModelRef("digits")
COLORS = ModelRef("colors")
BLANK = np.zeros((1, 28, 28), np.uint8)
CARD = TaskCard("colors", ("dark", "light"), (2, 3), (-1.0, 1.0))


CONNECTIONS = [Connection, partial(BlockingAsync, AsyncConnection)]
"""Classes of both connections, the asyncio one with blocking methods."""


@pytest.fixture(scope="module")
def server(digits: Any) -> Iterator[LinearModelServer]:
    with LinearModelServer(digits.images[:1000], digits.labels[:1000]) as server:
        yield server


def dark_and_light(card: TaskCard) -> np.ndarray:
    """Return one picture of each class: uint8 [2, *shape]."""
    return np.stack([np.full(card.shape, level, np.uint8) for level in (0, 255)])


@pytest.fixture
def colors() -> Iterator[LinearModelServer]:
    """Server of a model with a task card."""
    with LinearModelServer(dark_and_light(CARD), np.arange(2, dtype=np.uint8), task=CARD) as server:
        yield server


@pytest.fixture
def to_colors(colors: LinearModelServer) -> Iterator[Any]:
    with BlockingAsync(AsyncConnection, colors.target) as connection:
        yield connection


@pytest.fixture
def connection(server: LinearModelServer) -> Iterator[Any]:
    with BlockingAsync(AsyncConnection, server.target) as connection:
        yield connection


def test_blocking_connection_answers_as_the_asyncio_one(colors: LinearModelServer) -> None:
    connection = Connection(colors.target)
    assert connection.task(COLORS, timeout=5) == CARD
    predictions = connection.predict(dark_and_light(CARD), COLORS, timeout=5)
    assert [prediction.label for prediction in predictions] == [*CARD.labels]
    assert connection.versions(COLORS, timeout=5) == [VersionStatus(1, "AVAILABLE", "")]
    assert connection.resolve(COLORS, timeout=5) == 1
    with pytest.raises(ModelNotFoundError):
        connection.resolve(ModelRef("colors", version=9), timeout=5)
    connection.close()


@pytest.mark.parametrize("form", ["images", "pixels"])
def test_predict_returns_predictions_in_order(connection: Any, digits: Any, form: str) -> None:
    images = np.stack([digits.one(label) for label in range(10)])
    batch = images if form == "images" else images.reshape(10, 784).astype(np.float32) / 255
    predictions = connection.predict(batch, MODEL, timeout=5)
    assert [prediction.digit for prediction in predictions] == list(range(10))
    assert {prediction.model_version for prediction in predictions} == {1}


def test_predict_sends_request_id_and_logs_call(
    connection: Any, server: LinearModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG", logger="digit_client"):
        connection.predict(np.zeros((2, 28, 28), np.uint8), MODEL, timeout=5, request_id="request-7")
    assert server.request_ids[-1] == "request-7"
    assert re.search(
        rf"^{server.target}: Predict of 2 images by digits, version 1 in [\d.]+ ms \(request request-7\)$",
        caplog.messages[-1],
    )


@pytest.mark.parametrize(
    "model", [ModelRef("digits", version=9), ModelRef("digits", version_label="canary")], ids=str
)
def test_predict_and_resolve_unknown_version_or_label_raise_model_not_found(
    connection: Any, model: ModelRef
) -> None:
    with pytest.raises(ModelNotFoundError):
        connection.predict(BLANK, model, timeout=5)
    with pytest.raises(ModelNotFoundError):
        connection.resolve(model, timeout=5)


@pytest.mark.parametrize(
    ("code", "error_class"),
    [
        ("RESOURCE_EXHAUSTED", OverloadedError),
        ("INTERNAL", ServiceError),
        ("UNAUTHENTICATED", AuthenticationError),
    ],
)
def test_predict_error_status_is_raised_without_retry(
    connection: Any, server: LinearModelServer, code: str, error_class: type[DigitError]
) -> None:
    connection.task(MODEL, timeout=5)
    calls, server.failures = server.calls, [grpc.StatusCode[code]]
    with pytest.raises(ServiceError, match="injected") as raised:
        connection.predict(BLANK, MODEL, timeout=5)
    assert (type(raised.value), raised.value.reason) == (error_class, code)
    assert server.calls == calls + 1


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED], ids=str)
def test_predict_unavailable_status_is_retried(
    connection: Any, server: LinearModelServer, code: grpc.StatusCode
) -> None:
    connection.task(MODEL, timeout=5)
    calls, server.failures = server.calls, [code, code]
    assert len(connection.predict(BLANK, MODEL, timeout=5)) == 1
    assert server.calls == calls + 3


@pytest.fixture(params=["Server Threadpool Exhausted", "Concurrent RPC limit exceeded!"])
def busy(request: pytest.FixtureRequest, colors: LinearModelServer) -> LinearModelServer:
    """Server that refuses every call, as a model server does without a free thread."""
    colors.failures, colors.failure_details = [grpc.StatusCode.RESOURCE_EXHAUSTED] * 1000, request.param
    return colors


@pytest.mark.parametrize("connect", CONNECTIONS)
def test_predict_refused_by_busy_server_is_answered_by_next_one(
    connect: Callable[[str], Any], server: LinearModelServer, busy: LinearModelServer
) -> None:
    connection = connect(f"ipv4:{server.target},{busy.target}")
    # The first address that is connected gets all calls until the other one is connected, too.
    while not busy.calls:
        with suppress(OverloadedError):
            connection.versions(MODEL, timeout=5)
    calls = busy.calls
    for _ in range(6):
        assert len(connection.predict(BLANK, MODEL, timeout=5)) == 1
    assert busy.calls > calls
    connection.close()


def test_predict_refused_twice_raises_overloaded(to_colors: Any, busy: LinearModelServer) -> None:
    with pytest.raises(OverloadedError, match=busy.failure_details):
        to_colors.versions(COLORS, timeout=5)
    assert busy.calls == 2


def test_versions_refused_connection_raises_unavailable() -> None:
    with (
        BlockingAsync(AsyncConnection, "127.0.0.1:1") as connection,
        pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"),
    ):
        connection.versions(MODEL, timeout=5)


def test_task_without_card_is_that_of_digits(connection: Any) -> None:
    assert connection.known_task(MODEL) is None
    assert connection.task(MODEL, timeout=5) == DIGITS
    assert connection.known_task(MODEL) == DIGITS


@pytest.mark.parametrize("asks_first", [True, False], ids=["task-first", "predict-first"])
def test_task_is_read_once_while_the_same_version_answers(
    to_colors: Any, colors: LinearModelServer, asks_first: bool
) -> None:
    if asks_first:
        assert to_colors.task(COLORS, timeout=5) == CARD
    for _ in range(3):
        (dark, light) = to_colors.predict(dark_and_light(CARD), COLORS, timeout=5)
        assert (dark.label, light.label, light.model_version) == (*CARD.labels, 1)
    assert to_colors.known_task(COLORS) == CARD
    assert colors.card_calls == 1


def test_task_is_read_again_when_another_version_answers(to_colors: Any, colors: LinearModelServer) -> None:
    to_colors.predict(dark_and_light(CARD), COLORS, timeout=5)
    renamed = replace(CARD, labels=("night", "day"))
    colors.publish(dark_and_light(CARD), np.arange(2, dtype=np.uint8), task=renamed)
    (dark, light) = to_colors.predict(dark_and_light(CARD), COLORS, timeout=5)
    assert (dark.label, light.label, light.model_version) == ("night", "day", 2)
    assert to_colors.task(COLORS, timeout=5) == renamed


def test_task_of_another_shape_is_read_after_the_refused_call(
    to_colors: Any, colors: LinearModelServer
) -> None:
    to_colors.predict(dark_and_light(CARD), COLORS, timeout=5)
    larger = replace(CARD, shape=(4, 6))
    colors.publish(dark_and_light(larger), np.arange(2, dtype=np.uint8), task=larger)
    with pytest.raises(ServiceError):
        to_colors.predict(dark_and_light(CARD), COLORS, timeout=5)
    assert to_colors.task(COLORS, timeout=5) == larger
    (dark, light) = to_colors.predict(dark_and_light(larger), COLORS, timeout=5)
    assert (dark.label, light.label) == larger.labels


def test_task_other_failure_is_raised_and_not_remembered(to_colors: Any, colors: LinearModelServer) -> None:
    colors.failures = [grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND]
    for error_class in (ServiceError, ModelNotFoundError):
        with pytest.raises(ServiceError, match="injected") as raised:
            to_colors.task(COLORS, timeout=5)
        assert type(raised.value) is error_class
    assert to_colors.task(COLORS, timeout=5) == CARD


def test_unusable_card_or_answer_raises_service_error(to_colors: Any, colors: LinearModelServer) -> None:
    colors.card = b"[]"
    with pytest.raises(ServiceError, match="unusable task card"):
        to_colors.task(COLORS, timeout=5)
    with pytest.raises(ServiceError, match="unusable task card"):
        to_colors.predict(dark_and_light(CARD), COLORS, timeout=5)
    colors.card = json.dumps(CARD.to_document() | {"labels": ["a", "b", "c"]}).encode()
    with pytest.raises(ServiceError, match="unusable answer"):
        to_colors.predict(dark_and_light(CARD), COLORS, timeout=5)
