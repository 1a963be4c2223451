"""Both HTTP clients, against the real gateway, and against a server that fails as told."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

from digit_client import (
    AsyncDigitClient,
    ConnectionFailedError,
    DeadlineExceededError,
    DigitClient,
    DigitError,
    ModelNotFoundError,
    NoDigitError,
    Prediction,
    RetryPolicy,
    UnavailableError,
)
from digit_client._inputs import to_png

QUICK = RetryPolicy(attempts=3, base=0.001, cap=0.01)


class AsyncInSync:
    """AsyncDigitClient behind the calls of DigitClient, so that one test serves both."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncDigitClient(*arguments, **options)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)
        return lambda *arguments, **options: self._runner.run(method(*arguments, **options))

    def __enter__(self) -> "AsyncInSync":
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


@pytest.fixture(params=[DigitClient, AsyncInSync])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


class TestAgainstTheGateway:
    @pytest.fixture
    def client(self, kind: Any, gateway: str) -> Iterator[Any]:
        with kind(gateway) as client:
            yield client

    def test_a_prediction_is_right(self, client: Any, digits: Any) -> None:
        prediction = client.predict(digits.one(7))
        assert isinstance(prediction, Prediction)
        assert prediction.digit == 7
        assert prediction.model_version == 1

    def test_every_source_gives_the_same(self, client: Any, digits: Any, tmp_path: Path) -> None:
        image = digits.one(3)
        path = tmp_path / "three.png"
        path.write_bytes(to_png(image))
        with path.open("rb") as file:
            sources = [image, path, str(path), path.read_bytes(), file]
            assert len({client.predict(source) for source in sources}) == 1

    def test_many_come_in_the_order_sent(self, client: Any, digits: Any) -> None:
        images = digits.images[:300]
        as_one = client.predict_many(images)
        as_files = client.predict_many(list(images))
        assert [p.digit for p in as_one] == [p.digit for p in as_files]
        assert np.mean([p.digit for p in as_one] == digits.labels[:300]) > 0.85

    def test_nothing_to_read_is_nothing_read(self, client: Any) -> None:
        assert client.predict_many([]) == []

    def test_a_version_can_be_asked_for(self, client: Any, digits: Any) -> None:
        assert client.predict(digits.one(1), version=1).model_version == 1
        with pytest.raises(ModelNotFoundError):
            client.predict(digits.one(1), version=99)
        with pytest.raises(ModelNotFoundError):
            client.predict(digits.one(1), label="nonsense")
        with pytest.raises(ValueError, match="not both"):
            client.predict(digits.one(1), version=1, label="stable")

    def test_a_blank_image_is_named(self, client: Any, digits: Any) -> None:
        images: list[Any] = [digits.one(1), np.zeros((28, 28), np.uint8)]
        with pytest.raises(NoDigitError) as raised:
            client.predict_many(images)
        assert raised.value.index == 1

    def test_the_models_are_listed(self, client: Any) -> None:
        models = client.models()
        assert models["name"] == "digits"
        assert models["versions"] == [{"version": 1, "state": "AVAILABLE"}]


class Faulty:
    """A server on a port of its own that answers as the test tells it, request by request."""

    def __init__(self) -> None:
        self.answers: list[Callable[[], Response]] = []
        self.requests = 0
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.01])
        self._thread.start()

    def _answer(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        self.requests += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer()(environ, start_response)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def good() -> Response:
    probabilities = "[1,0,0,0,0,0,0,0,0,0]"
    prediction = f'{{"digit":0,"confidence":1,"probabilities":{probabilities}}}'
    return Response(f'{{"model":{{"name":"digits","version":1}},"predictions":[{prediction}]}}')


def failing(status: int, **headers: str) -> Callable[[], Response]:
    return lambda: Response("{}", status, headers)


class TestAgainstFaults:
    @pytest.fixture
    def faulty(self) -> Iterator[Faulty]:
        server = Faulty()
        yield server
        server.close()

    @pytest.mark.parametrize("status", [429, 502, 503, 504])
    @pytest.mark.parametrize("failures", [0, 1, 2])
    def test_passing_failures_are_got_over(
        self, kind: Any, faulty: Faulty, status: int, failures: int
    ) -> None:
        faulty.answers = [failing(status)] * failures + [good]
        with kind(faulty.url, retries=QUICK) as client:
            assert client.predict(b"image").digit == 0
        assert faulty.requests == failures + 1

    def test_lasting_failures_are_raised(self, kind: Any, faulty: Faulty) -> None:
        faulty.answers = [failing(503)]
        with kind(faulty.url, retries=QUICK) as client, pytest.raises(UnavailableError):
            client.predict(b"image")
        assert faulty.requests == 3

    @pytest.mark.parametrize("status", [400, 404, 413, 415, 422, 500, 501])
    def test_other_failures_are_not_tried_again(self, kind: Any, faulty: Faulty, status: int) -> None:
        faulty.answers = [failing(status)]
        with kind(faulty.url, retries=QUICK) as client, pytest.raises(DigitError):
            client.predict(b"image")
        assert faulty.requests == 1

    def test_retry_after_is_waited_for(self, kind: Any, faulty: Faulty) -> None:
        faulty.answers = [failing(503, **{"Retry-After": "0.3"}), good]
        started = time.monotonic()
        with kind(faulty.url, retries=QUICK) as client:
            client.predict(b"image")
        assert time.monotonic() - started >= 0.3

    def test_a_service_that_hangs_is_given_up_in_time(self, kind: Any, faulty: Faulty) -> None:
        faulty.answers = [lambda: time.sleep(1) or good()]  # type: ignore[func-returns-value]
        started = time.monotonic()
        with kind(faulty.url, timeout=0.3) as client, pytest.raises(DeadlineExceededError):
            client.predict(b"image")
        assert time.monotonic() - started < 0.8

    def test_a_service_that_trickles_is_given_up_in_time(self, kind: Any, faulty: Faulty) -> None:
        def drops() -> Iterator[bytes]:
            for _ in range(20):
                time.sleep(0.1)
                yield b" "

        faulty.answers = [lambda: Response(drops())]
        started = time.monotonic()
        with kind(faulty.url, timeout=0.4) as client, pytest.raises(DeadlineExceededError):
            client.predict(b"image")
        assert time.monotonic() - started < 1.0

    def test_nobody_there_is_an_error_of_this_package(self, kind: Any) -> None:
        with kind("http://127.0.0.1:1", retries=QUICK) as client, pytest.raises(ConnectionFailedError):
            client.predict(b"image")

    @pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1", "http://"])
    def test_a_wrong_address_is_an_error_of_this_package(self, kind: Any, url: str) -> None:
        with kind(url, retries=QUICK) as client, pytest.raises(ConnectionFailedError):
            client.predict(b"image")


def test_settings_come_from_the_environment(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITS_URL", "http://example.test:1234/")
    monkeypatch.setenv("DIGITS_TIMEOUT", "2.5")
    for client in (DigitClient(), AsyncDigitClient()):
        assert (client.url, client.timeout) == ("http://example.test:1234", 2.5)
    assert DigitClient("http://other.test", timeout=1).url == "http://other.test"


def test_both_clients_take_the_same_arguments() -> None:
    import inspect

    for name in ("predict", "predict_many", "models", "close"):
        sync, later = getattr(DigitClient, name), getattr(AsyncDigitClient, name)
        assert inspect.signature(sync) == inspect.signature(later)
