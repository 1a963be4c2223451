"""HTTP client of the gateway."""

from collections.abc import Iterable, Iterator
from functools import partial
from threading import Event
from typing import Any

import httpx

from digit_client import _api
from digit_client._api import ImageBatch, UnreadableImage
from digit_client._async.image_client import AsyncImageClient
from digit_client._base_client import (
    FEEDBACK,
    MODELS,
    PREDICT,
    READ,
    READY,
    Answer,
    BaseClient,
    Request,
    Route,
)
from digit_client._concurrency import async_loop, async_run, async_time_limit
from digit_client._options import Feedback, Models, Options
from digit_client._retries import Deadline
from digit_core.errors import (
    ConnectionFailedError,
    DeadlineExceededError,
    DigitError,
    OverloadedError,
    UnavailableError,
    adding_request_id,
    without_tracebacks,
)
from digit_core.inputs import ImageSource
from digit_core.results import Prediction, Reading, Result

_ROUTES: dict[Any, Route[Any]] = {Prediction: PREDICT, Reading: READ}


class AsyncClient(AsyncImageClient[ImageBatch | UnreadableImage], BaseClient[httpx.AsyncClient]):
    """asyncio client of a gateway, for any task.

        async with AsyncClient() as client:
            prediction = await client.predict("five.png")
            print(prediction.digit)

    `url` is the gateway's URL (default: DIGITS_URL, or http://127.0.0.1:8080). `model` is the name of a model
    (default: the gateway's default model). `api_key` is needed if the gateway requires one (default:
    DIGITS_API_KEY). `timeout` in seconds bounds a request with all its retries (default: DIGITS_TIMEOUT, or
    10). `default_headers` are sent with each request. With `keep_response`, each result and error has its
    HTTP response. `http_client` is an httpx client with settings of its own, such as proxies or a private CA;
    the caller closes it.

    An image is a path, the bytes of an image file, an open binary file, a Pillow image or a NumPy array.
    Failures raise DigitError; a path that can't be read raises OSError, a URL without http:// or https://
    ValueError. A client can be pickled unless it was given an `http_client`. Threads may share a Client.

    Calls for an answer take the options of CallOptions.
    """

    async def feedback(
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
        `label` is the right text, with any white space. `timeout` and `request_id` are those of CallOptions.

        Feedback replaces earlier feedback on the same image. Raise ServiceError with `reason`
        "feedback_unknown" if the service no longer has the answer, "feedback_mismatch" if the label does not
        suit it, and "not_found" if the service takes no feedback; ValueError for an answer without a request
        ID.
        """
        options = Options(timeout=timeout, request_id=request_id)
        return await self._call(self._request(FEEDBACK, options, _api.encode_feedback(answer, label, index)))

    async def models(self, *, timeout: float | None = None, request_id: str | None = None) -> Models:
        """Return the model's versions, their labels, its task card, and the names of all models.

        `timeout` and `request_id` are those of CallOptions.
        """
        return await self._call(self._request(MODELS, Options(timeout=timeout, request_id=request_id)))

    async def ready(self, *, timeout: float | None = None) -> bool:
        """Tell whether the service would answer with its default model: one request, without retries.

        False if it says that it is not ready, or can't be reached within `timeout` seconds (default: the
        client's).
        """
        request = self._request(READY, Options(timeout=timeout))
        connection = self._connection(async_loop())
        try:
            await self._send(request, connection, Deadline(request.timeout), request.timeout)
        except (ConnectionFailedError, DeadlineExceededError, OverloadedError, UnavailableError):
            return False
        return True

    async def close(self) -> None:
        """Close the connections, except those of an `http_client` of the caller. End of the client's use."""
        if self._owns_http:
            await self._http.aclose()

    def _connect(self) -> httpx.AsyncClient:
        return httpx.AsyncClient()

    async def _send_image(self, kind: type[Result], image: ImageSource, options: Options) -> Result:
        arguments = await async_run(_api.encode_image, image)
        route: Route[list[Result | DigitError]] = _ROUTES[kind]
        (result,) = await self._call(self._request(route, options, arguments))
        if isinstance(result, DigitError):
            raise result
        return result

    def _batches(
        self, kind: type[Result], images: Iterable[ImageSource]
    ) -> Iterator[ImageBatch | UnreadableImage]:
        return _api.encode_batches(images, _ROUTES[kind].max_files)

    async def _send_batch(
        self, kind: type[Result], batch: ImageBatch | UnreadableImage, options: Options, stopped: Event
    ) -> list[tuple[int, Result | DigitError | OSError]]:
        if isinstance(batch, UnreadableImage):
            return [(batch.index, without_tracebacks(batch.error))]
        arguments = await async_run(batch.arguments)
        route: Route[list[Result | DigitError]] = _ROUTES[kind]
        try:
            request = self._request(route, options, arguments, indices=batch.indices)
            results = await self._call(request)
        except DigitError as error:
            results = [without_tracebacks(error)] * len(batch.indices)
        return list(zip(batch.indices, results, strict=True))

    async def _call(self, request: Request[Answer]) -> Answer:
        connection, deadline = self._connection(async_loop()), Deadline(request.timeout)
        with adding_request_id(request.request_id):
            return await self._retrier.run_async(partial(self._send, request, connection, deadline), deadline)

    async def _send(
        self, request: Request[Answer], connection: httpx.AsyncClient, deadline: Deadline, timeout: float
    ) -> Answer:
        """Send the request once, within the `timeout` seconds that are left until the deadline."""
        content = bytearray()
        with self._translate_errors(request.timeout):
            async with (
                async_time_limit(timeout),
                connection.stream(
                    request.route.method, self.url + request.route.path, timeout=timeout, **request.arguments
                ) as response,
            ):
                async for chunk in response.aiter_bytes():
                    content += chunk
                    # httpx's timeout bounds each wait: for a connection, the headers, a chunk of the body.
                    # remaining() raises at the deadline of all chunks.
                    deadline.remaining()
        return self._parse(request, response, bytes(content))
