"""The gateway's client for asyncio."""

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

import httpx

from digit_client import http_api
from digit_client.client import key_header, resolve_timeout, resolve_url, selection
from digit_client.errors import ConnectionFailedError, DeadlineExceededError
from digit_client.http_api import Body
from digit_client.predictions import Prediction
from digit_client.retry import Deadline, Retrier, RetryPolicy
from digit_client.sources import ImageSource


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
        body = await asyncio.to_thread(http_api.single, image)
        return (await self._predict(body, selection(version, label), deadline))[0]

    async def predict_many(
        self, images: Iterable[ImageSource], *, version: int | None = None, label: str | None = None
    ) -> list[Prediction]:
        """Read the digit on each image, in their order, with as few requests as the gateway allows."""
        deadline = Deadline(self.timeout)
        model = selection(version, label)
        bodies = await asyncio.to_thread(lambda: list(http_api.several(images)))
        answers = [await self._predict(body, model, deadline) for body in bodies]
        return [prediction for answer in answers for prediction in answer]

    async def models(self) -> dict[str, Any]:
        """What the service serves: its model's name, versions with their states, and labels."""

        async def send(left: float) -> dict[str, Any]:
            return http_api.read(*await self._send("GET", "/v1/models", left, {}))

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
            return http_api.read_predictions(*answer, first=body.first)

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
