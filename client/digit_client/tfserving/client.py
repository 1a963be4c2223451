"""gRPC clients of TensorFlow Serving, with DigitClient's interface and without a gateway."""

from collections.abc import AsyncGenerator, Generator, Iterable, Sequence
from functools import partial
from threading import Event
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack, overload

import grpc

from digit_client import _bulk, _flows
from digit_client._bulk import OnError
from digit_client._exceptions import DigitError
from digit_client._flows import Flow
from digit_client._inputs import ImageSource
from digit_client._types import CallOptions, Prediction, Reading
from digit_client.tfserving import pictures
from digit_client.tfserving.base_client import BaseClient, CallsDeadline, Options, Outcome, Recognize, Result
from digit_client.tfserving.model_server import AsyncModelServer, ModelServer
from digit_client.tfserving.pictures import Picture
from digit_client.tfserving.recognition import Call, Recognition

_Answer = TypeVar("_Answer")


class ModelServerClient(BaseClient[ModelServer]):
    """Blocking gRPC client of TensorFlow Serving. This process decodes and prepares the images.

        with ModelServerClient("127.0.0.1:8500", name="flowers") as client:
            print(client.predict("rose.jpg").label)

    `target` is host:port or unix:path (default: DIGITS_MODEL_SERVER, or 127.0.0.1:8500), `name` the model's
    name. The model's task card says how images are prepared; the client asks for it once per version.
    `timeout` in seconds (default: DIGITS_TIMEOUT, or 10) bounds the time that an image, or a batch of 256
    images, waits for the model server, with all retries; the preparation of the images is not counted.
    `credentials` from grpc.ssl_channel_credentials enable TLS.

    Images, results, errors and thread safety are those of DigitClient. The client connects at its first call.
    It can be pickled unless it was given credentials.
    """

    def predict(self, image: ImageSource, **options: Unpack[CallOptions]) -> Prediction:
        """Classify one image.

        A model of digits raises NoDigitError or SeveralDigitsError for an image without or with several.
        """
        return self._send_image(Recognition.predict, image, self._resolve(**options))

    @overload
    def predict_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: Literal["raise"] = "raise",
        concurrency: int = 4,
        **options: Unpack[CallOptions],
    ) -> list[Prediction]: ...

    @overload
    def predict_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: Literal["return"],
        concurrency: int = 4,
        **options: Unpack[CallOptions],
    ) -> list[Prediction | DigitError | OSError]: ...

    def predict_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: OnError = "raise",
        concurrency: int = 4,
        **options: Unpack[CallOptions],
    ) -> list[Any]:
        """Classify each image, in their order, in batches of 256, `concurrency` of them at a time.

        An error of one image fails the call, of several in a batch the first one; with `on_error="return"` it
        takes the place of the image's prediction. The timeout bounds each batch.

        An array uint8 [n, *shape] of the shape of the model's task is the fastest input. A model of digits
        answers its images in MNIST's form, light ink on dark, digits or not: `Prediction.is_accepted` tells
        them apart.
        """
        options_ = self._resolve(**options)
        return _bulk.in_order(self._send_images(Recognition.predict, images, options_, on_error, concurrency))

    def iter_predict(
        self, images: Iterable[ImageSource], *, concurrency: int = 4, **options: Unpack[CallOptions]
    ) -> Generator[tuple[int, Prediction | DigitError | OSError], None, None]:
        """Classify any number of images: yield the position of each, and its prediction or error.

        The order is that of the answers. Images are taken as batches end, so that few are in memory.
        """
        options_ = self._resolve(**options)
        return self._send_images(Recognition.predict, images, options_, "return", concurrency)

    def read(self, image: ImageSource, **options: Unpack[CallOptions]) -> Reading:
        """Read all digits on one image, in lines.

        Raise NoDigitError if there is none, ReadingNotSupportedError if the model's classes are not the ten
        digits.
        """
        return self._send_image(Recognition.read, image, self._resolve(**options))

    @overload
    def read_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: Literal["raise"] = "raise",
        concurrency: int = 4,
        **options: Unpack[CallOptions],
    ) -> list[Reading]: ...

    @overload
    def read_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: Literal["return"],
        concurrency: int = 4,
        **options: Unpack[CallOptions],
    ) -> list[Reading | DigitError | OSError]: ...

    def read_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: OnError = "raise",
        concurrency: int = 4,
        **options: Unpack[CallOptions],
    ) -> list[Any]:
        """Read all digits on each image, in the images' order; arguments as for `predict_many`."""
        options_ = self._resolve(**options)
        return _bulk.in_order(self._send_images(Recognition.read, images, options_, on_error, concurrency))

    def iter_read(
        self, images: Iterable[ImageSource], *, concurrency: int = 4, **options: Unpack[CallOptions]
    ) -> Generator[tuple[int, Reading | DigitError | OSError], None, None]:
        """Read any number of images: yield the position of each, and its reading or error, as they come."""
        options_ = self._resolve(**options)
        return self._send_images(Recognition.read, images, options_, "return", concurrency)

    def close(self) -> None:
        """Close the connection. A closed client can't be used again."""
        if server := self._connection.close():
            server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _new_server(self, target: str, credentials: grpc.ChannelCredentials | None) -> ModelServer:
        return ModelServer(target, credentials)

    def _send_image(self, recognize: Recognize[Result], image: ImageSource, options: Options) -> Result:
        return self._drive(self._image_flow(recognize, options, image), options)

    def _send_images(
        self,
        recognize: Recognize[Result],
        images: Iterable[ImageSource],
        options: Options,
        on_error: OnError,
        concurrency: int,
    ) -> Generator[tuple[int, Outcome[Result]], None, None]:
        def send(batch: Sequence[Picture], stopped: Event) -> list[tuple[int, Outcome[Result]]]:
            return self._drive(self._batch_flow(recognize, options, on_error, batch), options, stopped)

        _bulk.check(images, on_error, concurrency)
        return _bulk.run(pictures.batches(images), send, concurrency)

    def _drive(self, flow: Flow[Call, _Answer], options: Options, stopped: Event | None = None) -> _Answer:
        server, deadline = self._connection.server(), CallsDeadline(options.timeout)

        def send(call: Call) -> Any:
            with deadline.running() as running:
                return self._retrier.run(partial(call, server), running)

        return _flows.drive(flow, send, stopped)


class AsyncModelServerClient(BaseClient[AsyncModelServer]):
    """asyncio gRPC client of TensorFlow Serving: ModelServerClient with coroutines.

        async with AsyncModelServerClient("127.0.0.1:8500", name="flowers") as client:
            print((await client.predict("rose.jpg")).label)

    Arguments, results and errors are those of ModelServerClient. Threads decode and prepare the images. The
    connection belongs to the event loop of the first call.
    """

    async def predict(self, image: ImageSource, **options: Unpack[CallOptions]) -> Prediction:
        """Classify one image."""
        return await self._send_image(Recognition.predict, image, self._resolve(**options))

    @overload
    async def predict_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: Literal["raise"] = "raise",
        concurrency: int = 4,
        **options: Unpack[CallOptions],
    ) -> list[Prediction]: ...

    @overload
    async def predict_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: Literal["return"],
        concurrency: int = 4,
        **options: Unpack[CallOptions],
    ) -> list[Prediction | DigitError | OSError]: ...

    async def predict_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: OnError = "raise",
        concurrency: int = 4,
        **options: Unpack[CallOptions],
    ) -> list[Any]:
        """Classify each image, in their order, in batches of 256, `concurrency` of them at a time."""
        options_ = self._resolve(**options)
        outcomes = self._send_images(Recognition.predict, images, options_, on_error, concurrency)
        return _bulk.in_order([outcome async for outcome in outcomes])

    def iter_predict(
        self, images: Iterable[ImageSource], *, concurrency: int = 4, **options: Unpack[CallOptions]
    ) -> AsyncGenerator[tuple[int, Prediction | DigitError | OSError], None]:
        """Classify any number of images: yield the position of each, and its prediction or error.

        The order is that of the answers. A thread takes the images as batches end.
        """
        options_ = self._resolve(**options)
        return self._send_images(Recognition.predict, images, options_, "return", concurrency)

    async def read(self, image: ImageSource, **options: Unpack[CallOptions]) -> Reading:
        """Read all digits on one image, in lines."""
        return await self._send_image(Recognition.read, image, self._resolve(**options))

    @overload
    async def read_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: Literal["raise"] = "raise",
        concurrency: int = 4,
        **options: Unpack[CallOptions],
    ) -> list[Reading]: ...

    @overload
    async def read_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: Literal["return"],
        concurrency: int = 4,
        **options: Unpack[CallOptions],
    ) -> list[Reading | DigitError | OSError]: ...

    async def read_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: OnError = "raise",
        concurrency: int = 4,
        **options: Unpack[CallOptions],
    ) -> list[Any]:
        """Read all digits on each image, in the images' order; arguments as for `predict_many`."""
        options_ = self._resolve(**options)
        outcomes = self._send_images(Recognition.read, images, options_, on_error, concurrency)
        return _bulk.in_order([outcome async for outcome in outcomes])

    def iter_read(
        self, images: Iterable[ImageSource], *, concurrency: int = 4, **options: Unpack[CallOptions]
    ) -> AsyncGenerator[tuple[int, Reading | DigitError | OSError], None]:
        """Read any number of images: yield the position of each, and its reading or error, as they come."""
        options_ = self._resolve(**options)
        return self._send_images(Recognition.read, images, options_, "return", concurrency)

    async def close(self) -> None:
        """Close the connection. A closed client can't be used again."""
        if server := self._connection.close():
            await server.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _new_server(self, target: str, credentials: grpc.ChannelCredentials | None) -> AsyncModelServer:
        return AsyncModelServer(target, credentials)

    async def _send_image(self, recognize: Recognize[Result], image: ImageSource, options: Options) -> Result:
        return await self._drive(self._image_flow(recognize, options, image), options)

    def _send_images(
        self,
        recognize: Recognize[Result],
        images: Iterable[ImageSource],
        options: Options,
        on_error: OnError,
        concurrency: int,
    ) -> AsyncGenerator[tuple[int, Outcome[Result]], None]:
        async def send(batch: Sequence[Picture]) -> list[tuple[int, Outcome[Result]]]:
            return await self._drive(self._batch_flow(recognize, options, on_error, batch), options)

        _bulk.check(images, on_error, concurrency)
        return _bulk.run_async(pictures.batches(images), send, concurrency)

    async def _drive(self, flow: Flow[Call, _Answer], options: Options) -> _Answer:
        # Connect here, in the event loop: the flow runs in threads.
        server, deadline = self._connection.server(), CallsDeadline(options.timeout)

        async def send(call: Call) -> Any:
            with deadline.running() as running:
                return await self._retrier.run_async(partial(call, server), running)

        return await _flows.drive_async(flow, send)
