"""The gateway's client."""

import asyncio
import os
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

import httpx

from digit_client import _api
from digit_client._api import Body
from digit_client._exceptions import ConnectionFailedError, DeadlineExceededError
from digit_client._inputs import ImageSource
from digit_client._retries import Deadline, Retrier, RetryPolicy
from digit_client._types import Prediction

DEFAULT_URL = "http://127.0.0.1:8080"
DEFAULT_TIMEOUT = 10.0


class DigitClient:
    """Asks a digits gateway what digit an image shows.

        with DigitClient() as client:
            print(client.predict("five.png").digit)

    `url` is the gateway's (else DIGITS_URL, else http://127.0.0.1:8080), `api_key` one of its keys, where it
    asks for them (else DIGITS_API_KEY). `timeout` in seconds bounds a call
    with all its retries (else DIGITS_TIMEOUT, else 10). An image is a path, the bytes of an image file, such
    a file opened, a Pillow image or a NumPy array. Threads may share a client. Every failure is a DigitError,
    but for a path that can't be read, which is the usual OSError.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float | None = None,
        retries: RetryPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = resolve_url(url)
        self.timeout = resolve_timeout(timeout)
        self._retrier = Retrier(retries or RetryPolicy())
        self._http = httpx.Client(base_url=self.url, headers=key_header(api_key), transport=transport)

    def predict(
        self, image: ImageSource, *, version: int | None = None, label: str | None = None
    ) -> Prediction:
        """Read the digit on one image, with the newest model or that of a version or label."""
        deadline = Deadline(self.timeout)
        return self._predict(_api.single(image), selection(version, label), deadline)[0]

    def predict_many(
        self, images: Iterable[ImageSource], *, version: int | None = None, label: str | None = None
    ) -> list[Prediction]:
        """Read the digit on each image, in their order, with as few requests as the gateway allows.

        An array uint8 [n, 28, 28] of light ink on dark goes fastest.
        """
        deadline = Deadline(self.timeout)
        model = selection(version, label)
        return [
            prediction for body in _api.several(images) for prediction in self._predict(body, model, deadline)
        ]

    def models(self) -> dict[str, Any]:
        """What the service serves: its model's name, versions with their states, and labels."""

        def send(left: float) -> dict[str, Any]:
            return _api.read(*self._send("GET", "/v1/models", left, {}))

        return self._retrier.run(send, Deadline(self.timeout))

    def close(self) -> None:
        """Close the connections. A closed client can't be used again."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _predict(self, body: Body, model: dict[str, str], deadline: Deadline) -> list[Prediction]:
        arguments = body.arguments | {"params": model}

        def send(left: float) -> list[Prediction]:
            answer = self._send("POST", "/v1/predict", left, arguments)
            return _api.read_predictions(*answer, first=body.first)

        return self._retrier.run(send, deadline)

    def _send(
        self, method: str, path: str, timeout: float, arguments: dict[str, Any]
    ) -> tuple[int, httpx.Headers, bytes]:
        deadline = Deadline(timeout)
        content = bytearray()
        try:
            with self._http.stream(method, path, timeout=timeout, **arguments) as response:
                for chunk in response.iter_bytes():
                    content += chunk
                    # httpx bounds the wait for each piece; only this bounds their sum.
                    deadline.remaining()
        except httpx.TimeoutException as error:
            raise DeadlineExceededError(f"no answer from {self.url} within {timeout:.3g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ConnectionFailedError(f"can't reach {self.url}: {error}") from error
        return response.status_code, response.headers, bytes(content)


def resolve_url(url: str | None) -> str:
    """The gateway's URL: the argument, the environment or the default."""
    return (url or os.environ.get("DIGITS_URL") or DEFAULT_URL).rstrip("/")


def key_header(api_key: str | None) -> dict[str, str]:
    """The header that shows the argument's key, or the environment's, or none."""
    key = api_key or os.environ.get("DIGITS_API_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}


def resolve_timeout(timeout: float | None) -> float:
    """The deadline of a call in seconds: the argument, the environment or the default."""
    return float(os.environ.get("DIGITS_TIMEOUT") or DEFAULT_TIMEOUT) if timeout is None else timeout


def selection(version: int | None, label: str | None) -> dict[str, str]:
    """Which model is asked, as query parameters."""
    if version is not None and label is not None:
        raise ValueError("name a version or a label, not both")
    if version is not None:
        return {"version": str(version)}
    return {"label": label} if label is not None else {}


class AsyncDigitClient:
    """DigitClient with coroutines.

        async with AsyncDigitClient() as client:
            print((await client.predict("five.png")).digit)

    Arguments, results and errors are the same.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float | None = None,
        retries: RetryPolicy | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = resolve_url(url)
        self.timeout = resolve_timeout(timeout)
        self._retrier = Retrier(retries or RetryPolicy())
        self._http = httpx.AsyncClient(base_url=self.url, headers=key_header(api_key), transport=transport)

    async def predict(
        self, image: ImageSource, *, version: int | None = None, label: str | None = None
    ) -> Prediction:
        """Read the digit on one image, with the newest model or that of a version or label."""
        deadline = Deadline(self.timeout)
        body = await asyncio.to_thread(_api.single, image)
        return (await self._predict(body, selection(version, label), deadline))[0]

    async def predict_many(
        self, images: Iterable[ImageSource], *, version: int | None = None, label: str | None = None
    ) -> list[Prediction]:
        """Read the digit on each image, in their order, with as few requests as the gateway allows."""
        deadline = Deadline(self.timeout)
        model = selection(version, label)
        bodies = await asyncio.to_thread(lambda: list(_api.several(images)))
        answers = [await self._predict(body, model, deadline) for body in bodies]
        return [prediction for answer in answers for prediction in answer]

    async def models(self) -> dict[str, Any]:
        """What the service serves: its model's name, versions with their states, and labels."""

        async def send(left: float) -> dict[str, Any]:
            return _api.read(*await self._send("GET", "/v1/models", left, {}))

        return await self._retrier.run_async(send, Deadline(self.timeout))

    async def close(self) -> None:
        """Close the connections. A closed client can't be used again."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _predict(self, body: Body, model: dict[str, str], deadline: Deadline) -> list[Prediction]:
        arguments = body.arguments | {"params": model}

        async def send(left: float) -> list[Prediction]:
            answer = await self._send("POST", "/v1/predict", left, arguments)
            return _api.read_predictions(*answer, first=body.first)

        return await self._retrier.run_async(send, deadline)

    async def _send(
        self, method: str, path: str, timeout: float, arguments: dict[str, Any]
    ) -> tuple[int, httpx.Headers, bytes]:
        try:
            async with asyncio.timeout(timeout):
                response = await self._http.request(method, path, timeout=timeout, **arguments)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise DeadlineExceededError(f"no answer from {self.url} within {timeout:.3g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ConnectionFailedError(f"can't reach {self.url}: {error}") from error
        return response.status_code, response.headers, response.content
