"""Blocking and asyncio connections: against a gRPC server in this process."""

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import grpc
import numpy as np
import pytest

from digit_core import errors
from digit_core.artifact.task_card import DIGITS, CardInput, TaskCard
from digit_core.tfserving.calls import VersionStatus
from digit_core.tfserving.codec import ModelRef
from digit_core.tfserving.connection import AsyncConnection, Connection, ServedVersion
from tests.core.blocking import BlockingAsync
from tests.core.linear_model_server import LinearModelServer, dark_and_light
from tests.core.name_server import NameServer

MODEL = ModelRef("digits")
COLORS = ModelRef("colors")
BLANK = np.zeros((1, 28, 28), np.uint8)
CARD = TaskCard("colors", ("dark", "light"), CardInput((2, 3), (-1.0, 1.0)))
CLASSES = np.arange(2, dtype=np.uint8)


def soon() -> float:
    """Return a deadline in five seconds."""
    return time.monotonic() + 5


def predict(connection: Any, batch: np.ndarray, model: ModelRef, **options: Any) -> Any:
    """Return predictions of the version that the reference names."""
    return connection.predict(batch, connection.served(model, deadline=soon()), deadline=soon(), **options)


@pytest.fixture(scope="module")
def server(digits: Any) -> Iterator[LinearModelServer]:
    with LinearModelServer(digits.images[:1000], digits.labels[:1000]) as server:
        yield server


@pytest.fixture
def colors() -> Iterator[LinearModelServer]:
    """Server of a model with a task card."""
    with LinearModelServer(dark_and_light(CARD), CLASSES, task=CARD) as server:
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
    served = connection.served(COLORS, timeout=5)
    assert (served.model, served.version, served.card) == (COLORS, 1, CARD)
    assert connection.versions(COLORS, timeout=5) == [VersionStatus(1, "AVAILABLE", "")]
    assert connection.resolve(COLORS, timeout=5) == 1
    with pytest.raises(errors.ModelNotFoundError):
        connection.resolve(ModelRef("colors", version=9), timeout=5)
    connection.close()


def test_predict_sends_request_id_and_logs_call(
    connection: Any, server: LinearModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG", logger="digit_client"):
        predict(connection, np.zeros((2, 28, 28), np.uint8), MODEL, request_id="request-7")
    assert server.request_ids[-1] == "request-7"
    assert re.search(
        rf"^{server.target}: Predict of 2 images by digits, version 1 in [\d.]+ ms \(request request-7\)$",
        caplog.messages[-1],
    )


@pytest.mark.parametrize(
    "model", [ModelRef("digits", version=9), ModelRef("digits", version_label="canary")], ids=str
)
def test_unknown_version_or_label_raises_model_not_found(connection: Any, model: ModelRef) -> None:
    for ask in (connection.served, connection.resolve):
        with pytest.raises(errors.ModelNotFoundError):
            ask(model, deadline=soon())
    unloaded = ServedVersion(model, 9, DIGITS, None)
    with pytest.raises(errors.ModelNotFoundError):
        connection.predict(BLANK, unloaded, deadline=soon())


@pytest.mark.parametrize(
    ("code", "error_class"),
    [
        ("RESOURCE_EXHAUSTED", errors.OverloadedError),
        ("INTERNAL", errors.ServiceError),
        ("UNAUTHENTICATED", errors.AuthenticationError),
    ],
)
def test_predict_error_status_is_raised_without_retry(
    connection: Any, server: LinearModelServer, code: str, error_class: type[errors.DigitError]
) -> None:
    connection.served(MODEL, deadline=soon())
    calls, server.failures = server.calls, [grpc.StatusCode[code]]
    with pytest.raises(errors.ServiceError, match="injected") as raised:
        predict(connection, BLANK, MODEL)
    assert (type(raised.value), raised.value.reason) == (error_class, code)
    assert server.calls == calls + 1


def test_predict_unavailable_status_is_retried(connection: Any, server: LinearModelServer) -> None:
    connection.served(MODEL, deadline=soon())
    calls, server.failures = server.calls, [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED]
    assert len(predict(connection, BLANK, MODEL)) == 1
    assert server.calls == calls + 3


@pytest.fixture(params=["Server Threadpool Exhausted", "Concurrent RPC limit exceeded!"])
def busy(request: pytest.FixtureRequest, colors: LinearModelServer) -> LinearModelServer:
    """Server that refuses every call, as a model server does without a free thread."""
    colors.failures, colors.failure_details = [grpc.StatusCode.RESOURCE_EXHAUSTED] * 1000, request.param
    return colors


def test_predict_refused_by_busy_server_is_answered_by_next_one(
    server: LinearModelServer, busy: LinearModelServer
) -> None:
    with BlockingAsync(AsyncConnection, f"ipv4:{server.target},{busy.target}") as connection:
        # The first address that is connected gets all calls until the other one is connected, too.
        while not busy.calls:
            with suppress(errors.OverloadedError):
                connection.versions(MODEL, deadline=soon())
        calls = busy.calls
        for _ in range(6):
            assert len(predict(connection, BLANK, MODEL)) == 1
        assert busy.calls > calls


def test_predict_refused_twice_raises_overloaded(to_colors: Any, busy: LinearModelServer) -> None:
    with pytest.raises(errors.OverloadedError, match=busy.failure_details):
        to_colors.versions(COLORS, deadline=soon())
    assert busy.calls == 2


def test_versions_refused_connection_raises_unavailable() -> None:
    with (
        BlockingAsync(AsyncConnection, "127.0.0.1:1") as connection,
        pytest.raises(errors.UnavailableError, match=r"127\.0\.0\.1:1"),
    ):
        connection.versions(MODEL, deadline=soon())


def test_served_is_asked_once_while_the_same_version_answers(
    to_colors: Any, colors: LinearModelServer
) -> None:
    for _ in range(3):
        assert to_colors.served(COLORS, deadline=soon()).card == CARD
        (dark, light) = predict(to_colors, dark_and_light(CARD), COLORS)
        assert (dark.label, light.label, light.model_version) == (*CARD.labels, 1)
    assert colors.card_calls == 1


@pytest.mark.parametrize(
    "card",
    [replace(CARD, labels=("night", "day")), replace(CARD, input=replace(CARD.input, shape=(4, 6))), CARD],
    ids=["other labels", "other shape", "equal"],
)
def test_predict_version_with_another_card_is_returned_and_an_equal_one_answers(
    to_colors: Any, colors: LinearModelServer, card: TaskCard
) -> None:
    served = to_colors.served(COLORS, deadline=soon())
    colors.publish(dark_and_light(card), CLASSES, task=card)
    if card != CARD:
        served = to_colors.predict(dark_and_light(CARD), served, deadline=soon())
        assert (served.model, served.version, served.card) == (ModelRef("colors", version=2), 2, card)
    for _ in range(2):
        (dark, light) = to_colors.predict(dark_and_light(card), served, deadline=soon())
        assert (dark.label, light.label, light.model_version) == (*card.labels, 2)
    known = to_colors.served(COLORS, deadline=soon())
    assert (known.model, known.version, known.card) == (COLORS, 2, card)
    assert (colors.calls, colors.card_calls) == (3 if card != CARD else 2, 2)


@pytest.mark.parametrize("is_pinned", [False, True])
def test_predict_refused_by_the_same_version_raises_service_error(
    to_colors: Any, colors: LinearModelServer, is_pinned: bool
) -> None:
    served = to_colors.served(COLORS, deadline=soon())
    with pytest.raises(errors.ServiceError, match="must have shape") as raised:
        to_colors.predict(BLANK, served.pinned(1) if is_pinned else served, deadline=soon())
    assert (type(raised.value), raised.value.reason) == (errors.ServiceError, "INVALID_ARGUMENT")
    assert colors.card_calls == 2, "the card is read again: a version of another shape may have the name"
    assert len(predict(to_colors, dark_and_light(CARD), COLORS)) == 2


def test_served_other_failure_is_raised_and_not_remembered(to_colors: Any, colors: LinearModelServer) -> None:
    colors.failures = [grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND]
    for error_class in (errors.ServiceError, errors.ModelNotFoundError):
        with pytest.raises(errors.ServiceError, match="injected") as raised:
            to_colors.served(COLORS, deadline=soon())
        assert type(raised.value) is error_class
    assert to_colors.served(COLORS, deadline=soon()).card == CARD


def test_unusable_card_or_answer_raises_service_error(to_colors: Any, colors: LinearModelServer) -> None:
    colors.card = b"[]"
    for _ in range(2):
        with pytest.raises(errors.ServiceError, match="task card from the model server is unusable"):
            to_colors.served(COLORS, deadline=soon())
    colors.card = json.dumps(CARD.to_document() | {"labels": ["a", "b", "c"]}).encode()
    with pytest.raises(errors.ServiceError, match="answer from the model server is unusable"):
        predict(to_colors, dark_and_light(CARD), COLORS)


def test_predict_number_that_is_published_again_with_another_card_returns_it(
    to_colors: Any, colors: LinearModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = dark_and_light(CARD)
    first = to_colors.served(COLORS, deadline=soon())
    assert len(to_colors.predict(batch, first, deadline=soon())) == 2
    colors.card = json.dumps(replace(CARD, labels=("night", "day")).to_document()).encode()
    clock = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + 3)
    again = to_colors.predict(batch, first, deadline=soon())
    assert (again.version, again.card.labels) == (1, ("night", "day"))
    assert again.pinned(1) != first.pinned(1)
    answers = to_colors.predict(batch, again, deadline=soon())
    assert [answer.label for answer in answers] == ["night", "day"]


@pytest.mark.slow
@pytest.mark.xdist_group("timing")
@pytest.mark.parametrize(
    ("kind", "is_known_before"), [(Connection, False), (AsyncConnection, False), (AsyncConnection, True)]
)
def test_name_that_resolves_late_is_found_within_two_seconds(
    server: LinearModelServer, kind: Any, is_known_before: bool
) -> None:
    port = server.target.rpartition(":")[2]
    with NameServer() as names, ExitStack() as stack:
        # No server listens at this address of loopback.
        names.address = "127.0.0.9" if is_known_before else ""
        target = f"dns://127.0.0.1:{names.port}/model-server-grpc:{port}"
        connection: Any
        if kind is AsyncConnection:
            connection = stack.enter_context(BlockingAsync(AsyncConnection, target))
            ask = partial(ask_until_answered, lambda: connection.versions(MODEL, deadline=soon()))
        else:
            connection = Connection(target)
            stack.callback(connection.close)
            ask = partial(ask_until_answered, lambda: connection.versions(MODEL, timeout=5))
        # gRPC itself resolves a name again after 1, 3, 5, 9 and 16 seconds.
        assert ask(5) is None
        names.address = ""
        assert ask(6) is None
        names.address = "127.0.0.1"
        assert ask(2)


def ask_until_answered(ask: Callable[[], Any], seconds: float) -> Any:
    """Return the first answer within this time, or None."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(errors.UnavailableError):
            return ask()
        time.sleep(0.1)
    return None
