"""ModelServerClient against a gRPC server in this process."""

import io
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
    SeveralDigitsError,
)
from digit_client.images import normalise, to_png
from tests.client.drawn_numbers import draw_lines
from tests.client.linear_model_server import LinearModelServer


@pytest.fixture(scope="module")
def server(digits: Any) -> Iterator[LinearModelServer]:
    images, labels = digits.images[:1000], digits.labels[:1000]
    with LinearModelServer(images, labels, with_is_digit=True) as server:
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


@pytest.fixture(scope="module")
def number(digits: Any) -> np.ndarray:
    """Picture with two lines: 17 and 4."""
    return draw_lines([digits.one(1), digits.one(7)], [digits.one(4)])


def test_predict_one_digit_asks_server_once(
    client: ModelServerClient, server: LinearModelServer, digits: Any
) -> None:
    calls = server.calls
    prediction = client.predict(draw_lines([digits.one(3)]))
    assert prediction.digit == 3
    assert prediction.is_digit is not None
    assert prediction.is_digit > 0.5
    assert server.calls == calls + 1


def test_predict_several_digits_raises_several_digits(client: ModelServerClient, number: np.ndarray) -> None:
    for source in (number, to_png(number), io.BytesIO(to_png(number))):
        with pytest.raises(SeveralDigitsError) as raised:
            client.predict(source)
        assert (raised.value.count, raised.value.index) == (3, None)


def test_predict_many_several_digits_raises_with_index(
    client: ModelServerClient, digits: Any, number: np.ndarray
) -> None:
    with pytest.raises(SeveralDigitsError) as raised:
        client.predict_many([digits.one(1), number])
    assert (raised.value.count, raised.value.index) == (3, 1)


def test_predict_many_digits_with_specks_share_second_call(
    client: ModelServerClient, server: LinearModelServer, digits: Any
) -> None:
    def with_speck(label: int) -> np.ndarray:
        page = draw_lines([digits.one(label)])
        page[107:115, 136:144] = 0
        return page

    calls = server.calls
    predictions = client.predict_many([digits.one(1), with_speck(3), digits.one(4), with_speck(7)])
    assert [prediction.digit for prediction in predictions] == [1, 3, 4, 7]
    assert server.calls <= calls + 2


def test_predict_and_read_nothing_accepted_raise_no_digit(
    client: ModelServerClient, server: LinearModelServer, number: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "min_similarity", 1.1)
    with pytest.raises(NoDigitError):
        client.predict(number)
    with pytest.raises(NoDigitError):
        client.read(number)


def test_predict_many_model_inputs_are_answered_digit_or_not(
    client: ModelServerClient, number: np.ndarray
) -> None:
    (prediction,) = client.predict_many(normalise(number)[np.newaxis])
    assert prediction.is_digit is not None
    assert prediction.is_digit < 0.5


def test_read_returns_lines_with_boxes(client: ModelServerClient, number: np.ndarray) -> None:
    for source in (number, to_png(number), io.BytesIO(to_png(number))):
        reading = client.read(source, version=1)
        assert reading.text == "17\n4"
        assert [line.text for line in reading.lines] == ["17", "4"]
        assert [digit.digit for digit in reading.digits] == [1, 7, 4]
        assert reading.model_version == 1
        for digit, (row, column) in zip(reading.digits, [(0, 0), (0, 1), (1, 0)], strict=True):
            left, top, width, height = digit.box
            assert 40 + 80 * column <= left < left + width <= 120 + 80 * column
            assert 40 + 80 * row <= top < top + height <= 120 + 80 * row


def test_read_many_pictures_share_calls(
    client: ModelServerClient, server: LinearModelServer, digits: Any, number: np.ndarray
) -> None:
    calls = server.calls
    readings = client.read_many([number, digits.one(3), number])
    assert [reading.text for reading in readings] == ["17\n4", "3", "17\n4"]
    assert server.calls == calls + 1


def test_read_many_blank_image_raises_no_digit_with_index(client: ModelServerClient, digits: Any) -> None:
    with pytest.raises(NoDigitError) as raised:
        client.read_many([digits.one(1), np.zeros((28, 28), np.uint8)])
    assert raised.value.index == 1


def test_read_many_empty_list_returns_empty_list(client: ModelServerClient) -> None:
    assert client.read_many([]) == []


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
