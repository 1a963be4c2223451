"""Methods of all clients: predictions and readings of one image, of many, and of any number."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from threading import Event
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, Unpack, overload

from digit_client._concurrency import AsyncResults, OnError, async_collect, async_send_many, check_many
from digit_client._options import CallOptions, Options
from digit_core.errors import DigitError, ImageError
from digit_core.inputs import ImageSource
from digit_core.results import Prediction, Reading, Result

_Batch = TypeVar("_Batch")


class AsyncImageClient(ABC, Generic[_Batch]):
    """Base of the asyncio clients. A subclass splits images into batches, and sends them.

    The type of a result, Prediction or Reading, says what is asked for.
    """

    async def predict(self, image: ImageSource, **options: Unpack[CallOptions]) -> Prediction:
        """Classify one image. For a model of digits, a refusal of the image is a prediction as well.

        `image` is a path, the bytes of an image file, an open binary file, a Pillow image or a NumPy array.
        The options are those of CallOptions: `version` or `label`, `min_is_digit`, `include="image"`,
        `timeout` in seconds, `request_id`.
        """
        return await self._send_image(Prediction, image, Options(**options))

    @overload
    async def predict_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: Literal["return"] = "return",
        concurrency: int = 4,
        **options: Unpack[CallOptions],
    ) -> list[Prediction | ImageError | OSError]: ...

    @overload
    async def predict_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: Literal["raise"],
        concurrency: int = 4,
        **options: Unpack[CallOptions],
    ) -> list[Prediction]: ...

    async def predict_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: OnError = "return",
        concurrency: int = 4,
        **options: Unpack[CallOptions],
    ) -> list[Any]:
        """Classify each image, in their order, with few requests, `concurrency` of them at a time.

        The error of a broken picture takes its place: an ImageError, or the OSError of a path that can't be
        read; with `on_error="raise"` it fails the call, as every other error does. `images` are those of
        `predict`; an array uint8 [n, *shape] of the shape of the model's task is the fastest input. The
        options are those of CallOptions.
        """
        results = self._send_images(Prediction, images, Options(**options), concurrency)
        return await async_collect(results, on_error)

    def iter_predict(
        self, images: Iterable[ImageSource], *, concurrency: int = 4, **options: Unpack[CallOptions]
    ) -> AsyncResults[Prediction | DigitError | OSError]:
        """Classify any number of images: yield the position of each, and its prediction or error.

        The order is that of the answers; the error of a request takes the place of each of its images. Images
        are read as requests end, so that memory is bounded; `concurrency` requests are sent at a time. The
        options are those of CallOptions.
        """
        return self._send_images(Prediction, images, Options(**options), concurrency)

    async def read(self, image: ImageSource, **options: Unpack[CallOptions]) -> Reading:
        """Read all digits on one image, in lines; without a digit, the reading is empty.

        `image` is a path, the bytes of an image file, an open binary file, a Pillow image or a NumPy array.
        The options are those of CallOptions: `version` or `label`, `min_is_digit`, `include="image"`,
        `timeout` in seconds, `request_id`.

        Raise ReadingNotSupportedError if the model's classes are not the ten digits, ReaderMissingError if
        the service has no reader, TooManyDigitsError for more digits than a gateway's limit.
        """
        return await self._send_image(Reading, image, Options(**options))

    @overload
    async def read_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: Literal["return"] = "return",
        concurrency: int = 4,
        **options: Unpack[CallOptions],
    ) -> list[Reading | ImageError | OSError]: ...

    @overload
    async def read_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: Literal["raise"],
        concurrency: int = 4,
        **options: Unpack[CallOptions],
    ) -> list[Reading]: ...

    async def read_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: OnError = "return",
        concurrency: int = 4,
        **options: Unpack[CallOptions],
    ) -> list[Any]:
        """Read all digits on each image, in the images' order; arguments and errors as of `predict_many`."""
        results = self._send_images(Reading, images, Options(**options), concurrency)
        return await async_collect(results, on_error)

    def iter_read(
        self, images: Iterable[ImageSource], *, concurrency: int = 4, **options: Unpack[CallOptions]
    ) -> AsyncResults[Reading | DigitError | OSError]:
        """Read any number of images: yield the position of each, and its reading or error, as they come.

        The arguments are those of `iter_predict`.
        """
        return self._send_images(Reading, images, Options(**options), concurrency)

    @abstractmethod
    async def ready(self, *, timeout: float | None = None) -> bool:
        """Tell within `timeout` seconds whether the service answers; False also if it can't be reached."""

    @abstractmethod
    async def close(self) -> None:
        """Close the connections. A closed client can't be used again."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _send_images(
        self, kind: type[Result], images: Iterable[ImageSource], options: Options, concurrency: int
    ) -> AsyncResults[Result | DigitError | OSError]:
        async def send(batch: _Batch, stopped: Event) -> list[tuple[int, Result | DigitError | OSError]]:
            return await self._send_batch(kind, batch, options, stopped)

        check_many(images, concurrency)
        return async_send_many(self._batches(kind, images), send, concurrency)

    @abstractmethod
    async def _send_image(self, kind: type[Result], image: ImageSource, options: Options) -> Result:
        """Return the result of an image. Raise its error."""

    @abstractmethod
    def _batches(self, kind: type[Result], images: Iterable[ImageSource]) -> Iterator[_Batch]:
        """Yield the images of each request, as they are needed."""

    @abstractmethod
    async def _send_batch(
        self, kind: type[Result], batch: _Batch, options: Options, stopped: Event
    ) -> list[tuple[int, Result | DigitError | OSError]]:
        """Return the position and the result of each image. No request begins once `stopped` is set."""
