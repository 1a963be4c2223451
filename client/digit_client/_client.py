"""HTTP clients of the gateway, blocking and asyncio, with a common base class."""

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import httpx

from digit_client import _api, _inputs
from digit_client._api import RequestBody
from digit_client._exceptions import ConnectionFailedError, DeadlineExceededError, ImageShapeError
from digit_client._inputs import ImageSource
from digit_client._retries import Deadline, Retrier, RetryPolicy
from digit_client._types import Prediction, Reading

_DEFAULT_URL = "http://127.0.0.1:8080"
_DEFAULT_TIMEOUT = 10.0

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class _Request(Generic[_Result]):
    """HTTP request, and the function that parses status, headers and content of its response."""

    method: str
    path: str
    parse: Callable[[int, Mapping[str, str], bytes], _Result]
    arguments: dict[str, Any] = field(default_factory=dict)


_MakeRequest = Callable[[RequestBody, dict[str, str]], _Request[list[_Result]]]
"""Function that makes the request for a body of images and the query that selects the version."""


class _BaseClient:
    """Settings, requests and error translation of both clients."""

    def __init__(
        self,
        url: str | None,
        model: str | None,
        api_key: str | None,
        timeout: float | None,
        retries: RetryPolicy | None,
    ) -> None:
        self.url = (url or os.environ.get("DIGITS_URL") or _DEFAULT_URL).rstrip("/")
        self.model = model
        self.timeout = (
            float(os.environ.get("DIGITS_TIMEOUT") or _DEFAULT_TIMEOUT) if timeout is None else timeout
        )
        self._options: dict[str, Any] = {
            "base_url": self.url,
            "headers": _api.auth_headers(api_key or os.environ.get("DIGITS_API_KEY")),
            "params": {} if model is None else {"model": model},
        }
        self._retrier = Retrier(retries or RetryPolicy())

    def _predict_request(self, body: RequestBody, query: dict[str, str]) -> _Request[list[Prediction]]:
        parse = partial(_api.parse_predictions, first_index=body.first_index)
        return _Request("POST", "/v1/predict", parse, body.arguments | {"params": query})

    def _read_request(self, body: RequestBody, query: dict[str, str]) -> _Request[list[Reading]]:
        parse = partial(_api.parse_readings, first_index=body.first_index)
        return _Request("POST", "/v1/read", parse, body.arguments | {"params": query})

    def _models_request(self) -> _Request[dict[str, Any]]:
        return _Request("GET", "/v1/models", _api.parse_document)

    @contextmanager
    def _translate_errors(self, timeout: float) -> Iterator[None]:
        """Convert httpx's errors to errors of this package."""
        try:
            yield
        except (TimeoutError, httpx.TimeoutException) as error:
            raise DeadlineExceededError(f"no answer from {self.url} within {timeout:.3g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ConnectionFailedError(f"can't reach {self.url}: {error}") from error


class ClassifierClient(_BaseClient):
    """Blocking client of a gateway in front of any image classifier.

        with ClassifierClient(model="flowers") as client:
            print(client.predict("rose.jpg").label)

    `url` is the gateway's URL (default: DIGITS_URL, or http://127.0.0.1:8080). `model` is the name of a model
    (default: the gateway's default model). `api_key` is needed if the gateway requires one (default:
    DIGITS_API_KEY). `timeout` in seconds bounds a call with all its retries (default: DIGITS_TIMEOUT, or 10).
    An image is a path, the bytes of an image file, an open binary file, a Pillow image or a NumPy array. The
    client is thread-safe. Failures raise DigitError; a path that can't be read raises OSError.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        model: str | None = None,
        api_key: str | None = None,
        timeout: float | None = None,
        retries: RetryPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(url, model, api_key, timeout, retries)
        self._http = httpx.Client(**self._options, transport=transport)

    def predict(
        self, image: ImageSource, *, version: int | None = None, label: str | None = None
    ) -> Prediction:
        """Classify one image. A version number or label selects another version than the default one.

        A model of digits raises NoDigitError or SeveralDigitsError for an image without or with several.
        """
        return self._send_image(self._predict_request, image, version, label)

    def predict_many(
        self, images: Iterable[ImageSource], *, version: int | None = None, label: str | None = None
    ) -> list[Prediction]:
        """Classify each image, in their order, with as few requests as the gateway allows.

        An array uint8 [n, *shape] of the shape of the model's task is the fastest input. A model of digits
        answers its images in MNIST's form, light ink on dark, digits or not: `Prediction.is_accepted` tells
        them apart.
        """
        return self._send_images(self._predict_request, images, version, label)

    def models(self) -> dict[str, Any]:
        """Return the model's name, versions with their states, version labels and task card.

        The key `models` lists the names of all models; `task` is None while no version answers.
        """
        return self._call(self._models_request(), Deadline(self.timeout))

    def close(self) -> None:
        """Close the connections. A closed client can't be used again."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send_image(
        self, make_request: _MakeRequest[_Result], image: ImageSource, version: int | None, label: str | None
    ) -> _Result:
        deadline = Deadline(self.timeout)
        query = _api.version_query(version, label)
        return self._call(make_request(_api.encode_image(image), query), deadline)[0]

    def _send_images(
        self,
        make_request: _MakeRequest[_Result],
        images: Iterable[ImageSource],
        version: int | None,
        label: str | None,
    ) -> list[_Result]:
        deadline = Deadline(self.timeout)
        query = _api.version_query(version, label)

        def send(images: Iterable[ImageSource]) -> list[_Result]:
            bodies = _api.encode_batches(images)
            answers = (self._call(make_request(body, query), deadline) for body in bodies)
            return [result for answer in answers for result in answer]

        try:
            return send(images)
        except ImageShapeError:
            if not _inputs.is_batch(images):
                raise
            # The model takes another shape: send the array's items as pictures, which the gateway prepares.
            return send(list(images))

    def _call(self, request: _Request[_Result], deadline: Deadline) -> _Result:
        return self._retrier.run(partial(self._send, request), deadline)

    def _send(self, request: _Request[_Result], timeout: float) -> _Result:
        deadline = Deadline(timeout)
        content = bytearray()
        with (
            self._translate_errors(timeout),
            self._http.stream(request.method, request.path, timeout=timeout, **request.arguments) as response,
        ):
            for chunk in response.iter_bytes():
                content += chunk
                # httpx's timeout bounds the wait for each chunk; remaining() raises at the deadline of all.
                deadline.remaining()
        return request.parse(response.status_code, response.headers, bytes(content))


class DigitClient(ClassifierClient):
    """Blocking client of a gateway in front of a model of digits: ClassifierClient, and reading of numbers.

        with DigitClient() as client:
            print(client.predict("five.png").digit, client.read("receipt.jpg").text)

    Arguments, results and errors are those of ClassifierClient.
    """

    def read(self, image: ImageSource, *, version: int | None = None, label: str | None = None) -> Reading:
        """Read all digits on one image, in lines. Version and label as for `predict`.

        Raise NoDigitError if there is none, TooManyDigitsError for more than the gateway's limit,
        ReadingNotSupportedError if the model's classes are not the ten digits.
        """
        return self._send_image(self._read_request, image, version, label)

    def read_many(
        self, images: Iterable[ImageSource], *, version: int | None = None, label: str | None = None
    ) -> list[Reading]:
        """Read all digits on each image, in the images' order, with as few requests as the gateway allows."""
        return self._send_images(self._read_request, images, version, label)


class AsyncClassifierClient(_BaseClient):
    """asyncio client of a gateway: ClassifierClient with coroutines.

        async with AsyncClassifierClient(model="flowers") as client:
            print((await client.predict("rose.jpg")).label)

    Arguments, results and errors are those of ClassifierClient.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        model: str | None = None,
        api_key: str | None = None,
        timeout: float | None = None,
        retries: RetryPolicy | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(url, model, api_key, timeout, retries)
        self._http = httpx.AsyncClient(**self._options, transport=transport)

    async def predict(
        self, image: ImageSource, *, version: int | None = None, label: str | None = None
    ) -> Prediction:
        """Classify one image. A version number or label selects another version than the default one."""
        return await self._send_image(self._predict_request, image, version, label)

    async def predict_many(
        self, images: Iterable[ImageSource], *, version: int | None = None, label: str | None = None
    ) -> list[Prediction]:
        """Classify each image, in their order, with as few requests as the gateway allows."""
        return await self._send_images(self._predict_request, images, version, label)

    async def models(self) -> dict[str, Any]:
        """Return the model's name, versions with their states, version labels and task card."""
        return await self._call(self._models_request(), Deadline(self.timeout))

    async def close(self) -> None:
        """Close the connections. A closed client can't be used again."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _send_image(
        self, make_request: _MakeRequest[_Result], image: ImageSource, version: int | None, label: str | None
    ) -> _Result:
        deadline = Deadline(self.timeout)
        query = _api.version_query(version, label)
        body = await asyncio.to_thread(_api.encode_image, image)
        return (await self._call(make_request(body, query), deadline))[0]

    async def _send_images(
        self,
        make_request: _MakeRequest[_Result],
        images: Iterable[ImageSource],
        version: int | None,
        label: str | None,
    ) -> list[_Result]:
        deadline = Deadline(self.timeout)
        query = _api.version_query(version, label)

        async def send(images: Iterable[ImageSource]) -> list[_Result]:
            bodies = await asyncio.to_thread(lambda: list(_api.encode_batches(images)))
            answers = [await self._call(make_request(body, query), deadline) for body in bodies]
            return [result for answer in answers for result in answer]

        try:
            return await send(images)
        except ImageShapeError:
            if not _inputs.is_batch(images):
                raise
            # The model takes another shape: send the array's items as pictures, which the gateway prepares.
            return await send(list(images))

    async def _call(self, request: _Request[_Result], deadline: Deadline) -> _Result:
        return await self._retrier.run_async(partial(self._send, request), deadline)

    async def _send(self, request: _Request[_Result], timeout: float) -> _Result:
        with self._translate_errors(timeout):
            async with asyncio.timeout(timeout):
                response = await self._http.request(
                    request.method, request.path, timeout=timeout, **request.arguments
                )
        return request.parse(response.status_code, response.headers, response.content)


class AsyncDigitClient(AsyncClassifierClient):
    """asyncio client of a gateway in front of a model of digits: DigitClient with coroutines.

        async with AsyncDigitClient() as client:
            print((await client.predict("five.png")).digit)

    Arguments, results and errors are those of DigitClient.
    """

    async def read(
        self, image: ImageSource, *, version: int | None = None, label: str | None = None
    ) -> Reading:
        """Read all digits on one image, in lines. Version and label as for `predict`."""
        return await self._send_image(self._read_request, image, version, label)

    async def read_many(
        self, images: Iterable[ImageSource], *, version: int | None = None, label: str | None = None
    ) -> list[Reading]:
        """Read all digits on each image, in the images' order, with as few requests as the gateway allows."""
        return await self._send_images(self._read_request, images, version, label)
