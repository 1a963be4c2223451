# Generated from _async by client/generate_sync.py: change the source, then run the script.
"""gRPC client of TensorFlow Serving, with the interface of the HTTP client and without a gateway."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import replace
from threading import Event
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, TypeVar, Unpack, overload
from uuid import uuid4

import grpc
import numpy as np
from numpy.typing import NDArray

from digit_client._concurrency import (
    OnError,
    Results,
    blocking,
    check_many,
    collect,
    run,
    send_many,
)
from digit_client._exceptions import (
    DigitError,
    ImageError,
    ModelNotFoundError,
    ReaderMissingError,
    adding_request_id,
    without_tracebacks,
)
from digit_client._inputs import ImageSource
from digit_client._recognition import Outcome, Pictures, Recognition
from digit_client._retries import Deadline
from digit_client._sync.connection import Connection
from digit_client._types import MIN_IS_DIGIT, CallOptions, ModelServerKeywords, Prediction, Reading
from digit_client.artifact.task_card import READER_NAME
from digit_client.images import Peaks
from digit_client.tfserving.base_client import ModelServerBaseClient, PictureBatch, batches, read_once
from digit_client.tfserving.codec import Batch

_Result = TypeVar("_Result", Prediction, Reading)
_Recognize: TypeAlias = Callable[[Recognition, Pictures], Iterator[Outcome[_Result]]]


class ModelServerClient(ModelServerBaseClient[Connection]):
    """Blocking gRPC client of TensorFlow Serving. This process decodes and prepares the images.

        with ModelServerClient("127.0.0.1:8500", name="flowers") as client:
            prediction = client.predict("rose.jpg")
            print(prediction.label)

    `target` is host:port or unix:path (default: DIGITS_MODEL_SERVER, or 127.0.0.1:8500), `name` the model's
    name. Calls that name no version and no label are answered by the version labelled `label`; None stands
    for the newest one, on a model server without labels. The model's task card says how images are prepared;
    the client asks for it once a version. `timeout` in seconds (default: DIGITS_TIMEOUT, or 10) bounds the
    time that an image, or a batch of 256 images, waits for the model server, with all retries; the
    preparation of the images is not counted. `credentials` from grpc.ssl_channel_credentials enable TLS.

    Images, results, errors and options are those of Client, without `include`. The client connects at
    its first call, an asyncio client in that call's event loop. It can be pickled unless it was given
    credentials. Threads may share a ModelServerClient.
    """

    def predict(
        self,
        image: ImageSource,
        *,
        version: int | None = None,
        label: str | None = None,
        min_is_digit: float | None = None,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Prediction:
        """Classify one image. For a model of digits, a refusal of the image is a prediction as well."""
        options = CallOptions(version, label, min_is_digit, None, timeout, request_id)
        return self._send_image(Recognition.predict, image, options)

    @overload
    def predict_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: Literal["return"] = "return",
        concurrency: int = 4,
        **options: Unpack[ModelServerKeywords],
    ) -> list[Prediction | ImageError | OSError]: ...

    @overload
    def predict_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: Literal["raise"],
        concurrency: int = 4,
        **options: Unpack[ModelServerKeywords],
    ) -> list[Prediction]: ...

    def predict_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: OnError = "return",
        concurrency: int = 4,
        version: int | None = None,
        label: str | None = None,
        min_is_digit: float | None = None,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> list[Any]:
        """Classify each image, in their order, in batches of 256, `concurrency` of them at a time.

        The error of a broken picture takes its place: an ImageError, or the OSError of a path that can't be
        read; with `on_error="raise"` it fails the call, as every other error does. The timeout bounds each
        batch.

        An array uint8 [n, *shape] of the shape of the model's task is the fastest input.
        """
        options = CallOptions(version, label, min_is_digit, None, timeout, request_id)
        results = self._send_images(Recognition.predict, images, options, concurrency)
        return collect(results, on_error)

    def iter_predict(
        self,
        images: Iterable[ImageSource],
        *,
        concurrency: int = 4,
        version: int | None = None,
        label: str | None = None,
        min_is_digit: float | None = None,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Results[Prediction | DigitError | OSError]:
        """Classify any number of images: yield the position of each, and its prediction or error.

        The order is that of the answers; the error of a batch takes the place of each of its images. Images
        are taken as batches end, so that few are in memory.
        """
        options = CallOptions(version, label, min_is_digit, None, timeout, request_id)
        return self._send_images(Recognition.predict, images, options, concurrency)

    def read(
        self,
        image: ImageSource,
        *,
        version: int | None = None,
        label: str | None = None,
        min_is_digit: float | None = None,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Reading:
        """Read all digits on one image, in lines; without a digit, the reading is empty.

        Raise ReadingNotSupportedError if the model's classes are not the ten digits, ReaderMissingError if
        the model server has no reader.
        """
        options = CallOptions(version, label, min_is_digit, None, timeout, request_id)
        return self._send_image(Recognition.read, image, options)

    @overload
    def read_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: Literal["return"] = "return",
        concurrency: int = 4,
        **options: Unpack[ModelServerKeywords],
    ) -> list[Reading | ImageError | OSError]: ...

    @overload
    def read_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: Literal["raise"],
        concurrency: int = 4,
        **options: Unpack[ModelServerKeywords],
    ) -> list[Reading]: ...

    def read_many(
        self,
        images: Iterable[ImageSource],
        *,
        on_error: OnError = "return",
        concurrency: int = 4,
        version: int | None = None,
        label: str | None = None,
        min_is_digit: float | None = None,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> list[Any]:
        """Read all digits on each image, in the images' order; arguments and errors as of `predict_many`."""
        options = CallOptions(version, label, min_is_digit, None, timeout, request_id)
        results = self._send_images(Recognition.read, images, options, concurrency)
        return collect(results, on_error)

    def iter_read(
        self,
        images: Iterable[ImageSource],
        *,
        concurrency: int = 4,
        version: int | None = None,
        label: str | None = None,
        min_is_digit: float | None = None,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Results[Reading | DigitError | OSError]:
        """Read any number of images: yield the position of each, and its reading or error, as they come."""
        options = CallOptions(version, label, min_is_digit, None, timeout, request_id)
        return self._send_images(Recognition.read, images, options, concurrency)

    def close(self) -> None:
        """Close the connection. A closed client can't be used again."""
        if connection := self._connection.end():
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _new_connection(self, target: str, credentials: grpc.ChannelCredentials | None) -> Connection:
        return Connection(target, credentials)

    def _send_image(
        self, recognize: _Recognize[_Result], image: ImageSource, options: CallOptions
    ) -> _Result:
        pictures = [run(read_once, image)]
        ((_, result),) = self._recognize(recognize, PictureBatch(0, pictures), options, Event())
        if isinstance(result, ImageError):
            result.index = None
        if isinstance(result, Exception):
            raise result
        return result

    def _send_images(
        self,
        recognize: _Recognize[_Result],
        images: Iterable[ImageSource],
        options: CallOptions,
        concurrency: int,
    ) -> Results[_Result | DigitError | OSError]:
        def send(batch: PictureBatch, stopped: Event) -> list[tuple[int, _Result | DigitError | OSError]]:
            try:
                return self._recognize(recognize, batch, options, stopped)
            except DigitError as error:
                kept = without_tracebacks(error)
                return [(batch.start + position, kept) for position in range(len(batch.pictures))]

        check_many(images, concurrency)
        return send_many(batches(images), send, concurrency)

    def _recognize(
        self, recognize: _Recognize[_Result], batch: PictureBatch, options: CallOptions, stopped: Event
    ) -> list[tuple[int, _Result | DigitError | OSError]]:
        """Return the position and the result of each picture. No call begins once `stopped` is set."""
        model = self._model(options.version, options.label)
        reader = replace(self._model(None, None), name=READER_NAME)
        request_id = options.request_id or uuid4().hex
        timeout = self.timeout if options.timeout is None else options.timeout
        waited = 0.0
        # Connect here, in the event loop: the recognition runs in a thread.
        connection = self._connection.get()

        def call(send: Callable[[float], Any]) -> Any:
            nonlocal waited
            if stopped.is_set():
                raise CancelledError
            started = time.monotonic()
            try:
                return self._retrier.run(send, Deadline(timeout, waited))
            finally:
                waited += time.monotonic() - started

        def classify(inputs: Batch) -> list[Prediction]:
            answers: list[Prediction] = call(
                lambda timeout: connection.predict(inputs, model, timeout=timeout, request_id=request_id)
            )
            return answers

        def find(page: NDArray[np.uint8]) -> Peaks:
            try:
                peaks: Peaks = call(
                    lambda timeout: connection.find(page, reader, timeout=timeout, request_id=request_id)
                )
            except ModelNotFoundError as error:
                raise ReaderMissingError(
                    f"{error.message}: there is no model {READER_NAME}, which `digits train` publishes"
                ) from error
            return peaks

        with adding_request_id(request_id):
            task = call(lambda timeout: connection.task(model, timeout=timeout))
            min_is_digit = MIN_IS_DIGIT if options.min_is_digit is None else options.min_is_digit
            recognition = Recognition(blocking(classify), task, min_is_digit, blocking(find))
            outcomes: list[Outcome[_Result]] = run(list, recognize(recognition, batch.pictures))
        return [
            (batch.start + position, _complete(outcome.result, batch.start + position, request_id))
            for position, outcome in enumerate(outcomes)
        ]


def _complete(
    result: _Result | ImageError | OSError, index: int, request_id: str
) -> _Result | ImageError | OSError:
    """Add the request's ID to the result, and the position in the call to the error of a picture."""
    if isinstance(result, OSError):
        return result
    if isinstance(result, ImageError):
        result.index, result.request_id = index, request_id
        return result
    return replace(result, request_id=request_id)
