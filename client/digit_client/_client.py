"""HTTP clients of the gateway, blocking and asyncio."""

import asyncio
from collections.abc import AsyncGenerator, Generator, Iterable
from functools import partial
from threading import Event
from types import TracebackType
from typing import Any, Literal, Self, Unpack, overload

import httpx

from digit_client import _api, _bulk, _flows
from digit_client._api import ImageBatch, UnreadableImage
from digit_client._base_client import (
    PREDICT,
    READ,
    Answer,
    BaseClient,
    Options,
    Outcome,
    Request,
    Result,
    Route,
    adding_request_id,
)
from digit_client._bulk import OnError
from digit_client._exceptions import DigitError
from digit_client._inputs import ImageSource
from digit_client._retries import Deadline
from digit_client._types import Feedback, GatewayOptions, Models, Prediction, Reading


class ClassifierClient(BaseClient[httpx.Client]):
    """Blocking client of a gateway in front of any image classifier.

        with ClassifierClient(model="flowers") as client:
            print(client.predict("rose.jpg").label)

    `url` is the gateway's URL (default: DIGITS_URL, or http://127.0.0.1:8080). `model` is the name of a model
    (default: the gateway's default model). `api_key` is needed if the gateway requires one (default:
    DIGITS_API_KEY). `timeout` in seconds bounds a request with all its retries (default: DIGITS_TIMEOUT, or
    10). `default_headers` are sent with each request. With `keep_response`, each result and error has its
    HTTP response. `http_client` is an httpx client with settings of its own, such as proxies or a private CA;
    the caller closes it.

    An image is a path, the bytes of an image file, an open binary file, a Pillow image or a NumPy array. The
    client is thread-safe, and can be pickled unless it was given an `http_client`. Failures raise DigitError;
    a path that can't be read raises OSError, a URL without http:// or https:// ValueError.
    """

    def predict(self, image: ImageSource, **options: Unpack[GatewayOptions]) -> Prediction:
        """Classify one image. `include="image"` adds the model's input to the prediction.

        A model of digits raises NoDigitError or SeveralDigitsError for an image without or with several.
        """
        return self._send_image(PREDICT, image, self._resolve(**options))

    @overload
    def predict_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: Literal["raise"] = "raise",
        concurrency: int = 4,
        **options: Unpack[GatewayOptions],
    ) -> list[Prediction]: ...

    @overload
    def predict_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: Literal["return"],
        concurrency: int = 4,
        **options: Unpack[GatewayOptions],
    ) -> list[Prediction | DigitError | OSError]: ...

    def predict_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: OnError = "raise",
        concurrency: int = 4,
        **options: Unpack[GatewayOptions],
    ) -> list[Any]:
        """Classify each image, in their order, with few requests, `concurrency` of them at a time.

        An error of one image fails the call; with `on_error="return"` it takes the place of the image's
        prediction. The timeout bounds each request.

        An array uint8 [n, *shape] of the shape of the model's task is the fastest input. A model of digits
        answers its images in MNIST's form, light ink on dark, digits or not: `Prediction.is_accepted` tells
        them apart.
        """
        options_ = self._resolve(**options)
        return _bulk.in_order(self._send_images(PREDICT, images, options_, on_error, concurrency))

    def iter_predict(
        self,
        images: Iterable[ImageSource],
        *,
        concurrency: int = 4,
        **options: Unpack[GatewayOptions],
    ) -> Generator[tuple[int, Prediction | DigitError | OSError], None, None]:
        """Classify any number of images: yield the position of each, and its prediction or error.

        The order is that of the answers. Images are read as requests end, so that memory is bounded. The
        timeout bounds each request.
        """
        return self._send_images(PREDICT, images, self._resolve(**options), "return", concurrency)

    def feedback(
        self,
        answer: Prediction | Reading | str,
        label: str | int | None = None,
        *,
        index: int | None = None,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Feedback:
        """Tell the service which `label` the image of an answer has, for training; None confirms the answer.

        `answer` is a prediction, a reading, or the ID of its request; `index` is then the image's position in
        the request. `label` is one of the model's labels, or "" for an image of none of them. For a reading,
        `label` is the right text: as many digits as were read, with any white space.

        Feedback replaces earlier feedback on the same image. Raise ServiceError with `reason`
        "feedback_unknown" if the service no longer has the answer, "feedback_mismatch" if the label does not
        suit it, and "not_found" if the service takes no feedback; ValueError for an answer without a request
        ID.
        """
        options = self._resolve(timeout=timeout, request_id=request_id)
        return self._call(self._feedback_request(answer, label, index, options))

    def models(self, *, timeout: float | None = None, request_id: str | None = None) -> Models:
        """Return the model's versions, their labels, its task card, and the names of all models."""
        return self._call(self._models_request(self._resolve(timeout=timeout, request_id=request_id)))

    def close(self) -> None:
        """Close the connections, except those of an `http_client` of the caller. End of the client's use."""
        if self._owns_http:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self) -> httpx.Client:
        return httpx.Client()

    def _send_image(self, route: Route[Result], image: ImageSource, options: Options) -> Result:
        arguments = _api.encode_image(image)
        return self._call(self._images_request(route, options, arguments, None))[0]

    def _send_images(
        self,
        route: Route[Result],
        images: Iterable[ImageSource],
        options: Options,
        on_error: OnError,
        concurrency: int,
    ) -> Generator[tuple[int, Outcome[Result]], None, None]:
        def send(batch: ImageBatch | UnreadableImage, stopped: Event) -> list[tuple[int, Outcome[Result]]]:
            return _flows.drive(self._batch_flow(route, options, on_error, batch), self._call, stopped)

        _bulk.check(images, on_error, concurrency)
        return _bulk.run(_api.encode_batches(images), send, concurrency)

    def _call(self, request: Request[Answer]) -> Answer:
        with adding_request_id(request.request_id):
            return self._retrier.run(partial(self._send, request), Deadline(request.timeout))

    def _send(self, request: Request[Answer], timeout: float) -> Answer:
        deadline = Deadline(timeout)
        content = bytearray()
        with (
            self._translate_errors(timeout),
            self._connection().stream(
                request.method, self.url + request.path, timeout=timeout, **request.arguments
            ) as response,
        ):
            for chunk in response.iter_bytes():
                content += chunk
                # httpx's timeout bounds each wait: for a connection, the headers, a chunk of the body.
                # remaining() raises at the deadline of all chunks.
                deadline.remaining()
        return self._parse(request, response, bytes(content))


class DigitClient(ClassifierClient):
    """Blocking client of a gateway in front of a model of digits: ClassifierClient, and reading of numbers.

        with DigitClient() as client:
            print(client.predict("five.png").digit, client.read("receipt.jpg").text)

    Arguments, results and errors are those of ClassifierClient.
    """

    def read(self, image: ImageSource, **options: Unpack[GatewayOptions]) -> Reading:
        """Read all digits on one image, in lines. `include="image"` adds the model's input to each digit.

        Raise NoDigitError if there is none, TooManyDigitsError for more than the gateway's limit,
        ReadingNotSupportedError if the model's classes are not the ten digits.
        """
        return self._send_image(READ, image, self._resolve(**options))

    @overload
    def read_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: Literal["raise"] = "raise",
        concurrency: int = 4,
        **options: Unpack[GatewayOptions],
    ) -> list[Reading]: ...

    @overload
    def read_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: Literal["return"],
        concurrency: int = 4,
        **options: Unpack[GatewayOptions],
    ) -> list[Reading | DigitError | OSError]: ...

    def read_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: OnError = "raise",
        concurrency: int = 4,
        **options: Unpack[GatewayOptions],
    ) -> list[Any]:
        """Read all digits on each image, in the images' order; arguments as for `predict_many`."""
        options_ = self._resolve(**options)
        return _bulk.in_order(self._send_images(READ, images, options_, on_error, concurrency))

    def iter_read(
        self,
        images: Iterable[ImageSource],
        *,
        concurrency: int = 4,
        **options: Unpack[GatewayOptions],
    ) -> Generator[tuple[int, Reading | DigitError | OSError], None, None]:
        """Read any number of images: yield the position of each, and its reading or error, as they come."""
        return self._send_images(READ, images, self._resolve(**options), "return", concurrency)


class AsyncClassifierClient(BaseClient[httpx.AsyncClient]):
    """asyncio client of a gateway: ClassifierClient with coroutines.

        async with AsyncClassifierClient(model="flowers") as client:
            print((await client.predict("rose.jpg")).label)

    Arguments, results and errors are those of ClassifierClient; `http_client` is an httpx.AsyncClient.
    """

    async def predict(self, image: ImageSource, **options: Unpack[GatewayOptions]) -> Prediction:
        """Classify one image. `include="image"` adds the model's input to the prediction."""
        return await self._send_image(PREDICT, image, self._resolve(**options))

    @overload
    async def predict_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: Literal["raise"] = "raise",
        concurrency: int = 4,
        **options: Unpack[GatewayOptions],
    ) -> list[Prediction]: ...

    @overload
    async def predict_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: Literal["return"],
        concurrency: int = 4,
        **options: Unpack[GatewayOptions],
    ) -> list[Prediction | DigitError | OSError]: ...

    async def predict_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: OnError = "raise",
        concurrency: int = 4,
        **options: Unpack[GatewayOptions],
    ) -> list[Any]:
        """Classify each image, in their order, with few requests, `concurrency` of them at a time."""
        options_ = self._resolve(**options)
        outcomes = self._send_images(PREDICT, images, options_, on_error, concurrency)
        return _bulk.in_order([outcome async for outcome in outcomes])

    def iter_predict(
        self,
        images: Iterable[ImageSource],
        *,
        concurrency: int = 4,
        **options: Unpack[GatewayOptions],
    ) -> AsyncGenerator[tuple[int, Prediction | DigitError | OSError], None]:
        """Classify any number of images: yield the position of each, and its prediction or error.

        The order is that of the answers. A thread reads the images as requests end.
        """
        return self._send_images(PREDICT, images, self._resolve(**options), "return", concurrency)

    async def feedback(
        self,
        answer: Prediction | Reading | str,
        label: str | int | None = None,
        *,
        index: int | None = None,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Feedback:
        """Tell the service which `label` the image of an answer has; arguments as for ClassifierClient."""
        options = self._resolve(timeout=timeout, request_id=request_id)
        return await self._call(self._feedback_request(answer, label, index, options))

    async def models(self, *, timeout: float | None = None, request_id: str | None = None) -> Models:
        """Return the model's versions, their labels, its task card, and the names of all models."""
        return await self._call(self._models_request(self._resolve(timeout=timeout, request_id=request_id)))

    async def close(self) -> None:
        """Close the connections, except those of an `http_client` of the caller. End of the client's use."""
        if self._owns_http:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _connect(self) -> httpx.AsyncClient:
        return httpx.AsyncClient()

    async def _send_image(self, route: Route[Result], image: ImageSource, options: Options) -> Result:
        arguments = await asyncio.to_thread(_api.encode_image, image)
        return (await self._call(self._images_request(route, options, arguments, None)))[0]

    def _send_images(
        self,
        route: Route[Result],
        images: Iterable[ImageSource],
        options: Options,
        on_error: OnError,
        concurrency: int,
    ) -> AsyncGenerator[tuple[int, Outcome[Result]], None]:
        async def send(batch: ImageBatch | UnreadableImage) -> list[tuple[int, Outcome[Result]]]:
            return await _flows.drive_async(self._batch_flow(route, options, on_error, batch), self._call)

        _bulk.check(images, on_error, concurrency)
        return _bulk.run_async(_api.encode_batches(images), send, concurrency)

    async def _call(self, request: Request[Answer]) -> Answer:
        with adding_request_id(request.request_id):
            return await self._retrier.run_async(partial(self._send, request), Deadline(request.timeout))

    async def _send(self, request: Request[Answer], timeout: float) -> Answer:
        with self._translate_errors(timeout):
            async with asyncio.timeout(timeout):
                response = await self._connection().request(
                    request.method, self.url + request.path, timeout=timeout, **request.arguments
                )
        return self._parse(request, response, response.content)


class AsyncDigitClient(AsyncClassifierClient):
    """asyncio client of a gateway in front of a model of digits: DigitClient with coroutines.

        async with AsyncDigitClient() as client:
            print((await client.predict("five.png")).digit)

    Arguments, results and errors are those of DigitClient.
    """

    async def read(self, image: ImageSource, **options: Unpack[GatewayOptions]) -> Reading:
        """Read all digits on one image, in lines. `include="image"` adds the model's input to each digit."""
        return await self._send_image(READ, image, self._resolve(**options))

    @overload
    async def read_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: Literal["raise"] = "raise",
        concurrency: int = 4,
        **options: Unpack[GatewayOptions],
    ) -> list[Reading]: ...

    @overload
    async def read_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: Literal["return"],
        concurrency: int = 4,
        **options: Unpack[GatewayOptions],
    ) -> list[Reading | DigitError | OSError]: ...

    async def read_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: OnError = "raise",
        concurrency: int = 4,
        **options: Unpack[GatewayOptions],
    ) -> list[Any]:
        """Read all digits on each image, in the images' order; arguments as for `predict_many`."""
        options_ = self._resolve(**options)
        outcomes = self._send_images(READ, images, options_, on_error, concurrency)
        return _bulk.in_order([outcome async for outcome in outcomes])

    def iter_read(
        self,
        images: Iterable[ImageSource],
        *,
        concurrency: int = 4,
        **options: Unpack[GatewayOptions],
    ) -> AsyncGenerator[tuple[int, Reading | DigitError | OSError], None]:
        """Read any number of images: yield the position of each, and its reading or error, as they come."""
        return self._send_images(READ, images, self._resolve(**options), "return", concurrency)
