"""gRPC client of TensorFlow Serving, with the interface of the HTTP client and without a gateway."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import replace
from threading import Event
from typing import Any
from uuid import uuid4

import grpc

from digit_client._async.image_client import AsyncImageClient
from digit_client._concurrency import async_loop, async_run
from digit_client._model_server_client import (
    ModelServerBaseClient,
    PictureBatch,
    batches,
    read_once,
    to_results,
)
from digit_client._options import Options, check_timeout
from digit_client._retries import Deadline
from digit_core.artifact.task_card import READER_NAME
from digit_core.errors import (
    DigitError,
    ImageError,
    ModelNotFoundError,
    ReaderMissingError,
    adding_request_id,
    without_tracebacks,
)
from digit_core.inputs import ImageSource
from digit_core.recognition import Classify, Find, Recognition, async_drive
from digit_core.results import MIN_IS_DIGIT, Prediction, Result
from digit_core.tfserving.async_connection import AsyncConnection


class AsyncModelServerClient(AsyncImageClient[PictureBatch], ModelServerBaseClient[AsyncConnection]):
    """asyncio gRPC client of TensorFlow Serving. This process decodes and prepares the images.

        async with AsyncModelServerClient("127.0.0.1:8500", name="flowers") as client:
            prediction = await client.predict("rose.jpg")
            print(prediction.label)

    `target` is host:port or unix:path (default: DIGITS_MODEL_SERVER, or 127.0.0.1:8500), `name` the model's
    name. Calls that name no version and no label are answered by the version labelled `label`; None stands
    for the newest one, on a model server without labels. The model's task card says how images are prepared;
    the client asks for it once a version. `timeout` in seconds (default: DIGITS_TIMEOUT, or 10) bounds the
    time that an image, or a batch of 256 images, waits for the model server, with all retries; the
    preparation of the images is not counted. `credentials` from grpc.ssl_channel_credentials enable TLS.

    Images, results, errors and options are those of AsyncClient. The client connects at its first call, an
    asyncio client in that call's event loop. It can be pickled unless it was given credentials. Threads may
    share a ModelServerClient.
    """

    async def ready(self, *, timeout: float | None = None) -> bool:
        """Tell whether the model server answers with the client's model: one call, without retries.

        False if the version is not served, or the server can't be reached within `timeout` seconds (default:
        the client's).
        """
        seconds = self.timeout if timeout is None else check_timeout(timeout)
        connection = self._connection.get(async_loop())
        try:
            await connection.resolve(self._model(None, None), timeout=seconds)
        except DigitError:
            return False
        return True

    async def close(self) -> None:
        """Close the connection. A closed client can't be used again."""
        if connection := self._connection.end():
            await connection.close()

    def _new_connection(self, target: str, credentials: grpc.ChannelCredentials | None) -> AsyncConnection:
        return AsyncConnection(target, credentials)

    async def _send_image(self, kind: type[Result], image: ImageSource, options: Options) -> Result:
        batch = PictureBatch(0, [await async_run(read_once, image)])
        ((_, result),) = await self._recognize(kind, batch, options, Event())
        if isinstance(result, ImageError):
            result.index = None
        if isinstance(result, Exception):
            raise result
        return result

    def _batches(self, kind: type[Result], images: Iterable[ImageSource]) -> Iterator[PictureBatch]:
        return batches(images)

    async def _send_batch(
        self, kind: type[Result], batch: PictureBatch, options: Options, stopped: Event
    ) -> list[tuple[int, Result | DigitError | OSError]]:
        try:
            return await self._recognize(kind, batch, options, stopped)
        except DigitError as error:
            kept = without_tracebacks(error)
            return [(batch.start + position, kept) for position in range(len(batch.pictures))]

    async def _recognize(
        self, kind: type[Result], batch: PictureBatch, options: Options, stopped: Event
    ) -> list[tuple[int, Result | DigitError | OSError]]:
        """Return the position and the result of each picture. No call begins once `stopped` is set."""
        model = self._model(options.version, options.label)
        reader = replace(self._model(None, None), name=READER_NAME)
        request_id = options.request_id or uuid4().hex
        options = replace(options, request_id=request_id)
        timeout = self.timeout if options.timeout is None else options.timeout
        waited = 0.0
        connection = self._connection.get(async_loop())

        async def call(send: Callable[[float], Any]) -> Any:
            nonlocal waited
            if stopped.is_set():
                raise CancelledError
            started = time.monotonic()
            try:
                return await self._retrier.run_async(send, Deadline(timeout, waited))
            finally:
                waited += time.monotonic() - started

        async def ask(request: Classify | Find) -> Any:
            if isinstance(request, Classify):
                batch = request.batch
                return await call(
                    lambda timeout: connection.predict(batch, model, timeout=timeout, request_id=request_id)
                )
            page = request.page
            try:
                return await call(
                    lambda timeout: connection.find(page, reader, timeout=timeout, request_id=request_id)
                )
            except ModelNotFoundError as error:
                raise ReaderMissingError(
                    f"{error.message}: there is no model {READER_NAME}, which `digits train` publishes"
                ) from error

        with adding_request_id(request_id):
            task = await call(lambda timeout: connection.task(model, timeout=timeout))
            min_is_digit = MIN_IS_DIGIT if options.min_is_digit is None else options.min_is_digit
            recognition = Recognition(task, min_is_digit)
            steps: Any = (recognition.predict if kind is Prediction else recognition.read)(batch.pictures)
            return await async_run(to_results, await async_drive(steps, ask), task, batch.start, options)
