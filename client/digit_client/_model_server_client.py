"""Base of the gRPC clients: settings, the connection, and batches of pictures in bounded memory."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from typing import Any, Generic, Self, TypeVar

import grpc

from digit_client._concurrency import check_loop
from digit_client._options import Options, check_timeout
from digit_client._retries import Retrier, RetryPolicy, default_timeout
from digit_core import inputs as _inputs
from digit_core.artifact.task_card import TaskCard
from digit_core.errors import ClientClosedError, ImageError, without_tracebacks
from digit_core.inputs import ImageSource, to_png
from digit_core.recognition import MAX_BATCH, Outcome, PictureError, Pictures, to_pixels
from digit_core.results import Prediction, Result
from digit_core.tfserving.async_connection import AsyncConnection
from digit_core.tfserving.calls import check_target
from digit_core.tfserving.codec import ModelRef
from digit_core.tfserving.connection import Connection

_DEFAULT_TARGET = "127.0.0.1:8500"
# Bytes of files and pixels in memory, at which a batch ends. Files at paths are read one after the other.
_BATCH_BYTES = 32 * 1024 * 1024

AnyConnection = TypeVar("AnyConnection", Connection, AsyncConnection)


@dataclass(frozen=True, slots=True)
class _Settings:
    """Settings of a client. They are all that a copy in another process needs."""

    target: str
    name: str
    version_label: str | None
    timeout: float
    retries: RetryPolicy


class ModelServerBaseClient(ABC, Generic[AnyConnection]):
    """Common base of the blocking and the asyncio client: settings, and the connection."""

    def __init__(
        self,
        target: str | None = None,
        *,
        name: str = "digits",
        label: str | None = "stable",
        credentials: grpc.ChannelCredentials | None = None,
        timeout: float | None = None,
        retries: RetryPolicy | None = None,
    ) -> None:
        timeout = default_timeout() if timeout is None else check_timeout(timeout)
        target = target or os.environ.get("DIGITS_MODEL_SERVER") or _DEFAULT_TARGET
        settings = _Settings(check_target(target), name, label, timeout, retries or RetryPolicy())
        self._connect(settings, credentials)

    @property
    def target(self) -> str:
        """Address of the model server."""
        return self._settings.target

    @property
    def name(self) -> str:
        """Name of the model."""
        return self._settings.name

    @property
    def timeout(self) -> float:
        """Seconds that a picture, or a batch of pictures, may wait for the model server."""
        return self._settings.timeout

    def with_options(self, *, timeout: float | None = None, retries: RetryPolicy | None = None) -> Self:
        """Return a client with other settings that shares the connection of this one.

        Closing either closes the connection of both.
        """
        client = object.__new__(type(self))
        client.__dict__.update(self.__dict__)
        if timeout is not None:
            client._settings = replace(client._settings, timeout=check_timeout(timeout))
        if retries is not None:
            client._settings = replace(client._settings, retries=retries)
            client._retrier = self._retrier.with_policy(retries)
        return client

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.target!r}, name={self.name!r}, timeout={self.timeout:g})"

    def __getstate__(self) -> _Settings:
        if self._credentials is not None:
            raise TypeError("a client with credentials can't be pickled; create it in each process")
        return self._settings

    def __setstate__(self, settings: _Settings) -> None:
        self._connect(settings, None)

    def _model(self, version: int | None, label: str | None) -> ModelRef:
        """Return the model with the version or label that a call names, by default the client's label."""
        if version is None and label is None:
            label = self._settings.version_label
        return ModelRef(self.name, version, label)

    def _connect(self, settings: _Settings, credentials: grpc.ChannelCredentials | None) -> None:
        self._settings = settings
        self._credentials = credentials
        self._retrier = Retrier(settings.retries)
        self._connection: _LazyConnection[AnyConnection] = _LazyConnection(
            partial(self._new_connection, settings.target, credentials)
        )

    @abstractmethod
    def _new_connection(self, target: str, credentials: grpc.ChannelCredentials | None) -> AnyConnection:
        """Return a new connection to the model server."""


@dataclass(frozen=True, slots=True)
class PictureBatch:
    """Pictures of a call, of which the first one has the position `start`."""

    start: int
    pictures: Pictures


def batches(images: Iterable[ImageSource]) -> Iterator[PictureBatch]:
    """Yield the pictures in batches, and take no image before its batch is asked for."""
    if _inputs.is_batch(images):
        for start in range(0, len(images), MAX_BATCH):
            yield PictureBatch(start, images[start : start + MAX_BATCH])
        return
    start = memory = 0
    batch: list[ImageSource | PictureError] = []
    for image in images:
        batch.append(read_once(image))
        memory += _memory(batch[-1])
        if len(batch) == MAX_BATCH or memory >= _BATCH_BYTES:
            yield PictureBatch(start, batch)
            start, memory, batch = start + len(batch), 0, []
    if batch:
        yield PictureBatch(start, batch)


def read_once(image: ImageSource) -> "ImageSource | PictureError":
    """Read an open file, which can be read only once, or return its error; leave other images as they are."""
    try:
        return _inputs.read_source(image) if hasattr(image, "read") else image
    except (ImageError, OSError) as error:
        return without_tracebacks(error)


def to_results(
    outcomes: Iterable[Outcome[Result]], task: TaskCard, start: int, options: Options
) -> list[tuple[int, Result | PictureError]]:
    """Return the position, from `start`, and the result of each picture, with the request's ID.

    The results have the model's inputs as PNG files if `options` include images.
    """
    results: list[tuple[int, Result | PictureError]] = []
    for index, outcome in enumerate(outcomes, start):
        result = outcome.result
        if isinstance(result, ImageError):
            result.index, result.request_id = index, options.request_id
        elif not isinstance(result, OSError):
            files = [to_png(to_pixels(row, task)) for row in outcome.inputs if options.include]
            result = replace(_with_images(result, files), request_id=options.request_id)
        results.append((index, result))
    return results


def _with_images(result: Any, files: Sequence[bytes]) -> Any:
    if not files:
        return result
    if isinstance(result, Prediction):
        return replace(result, image=files[0])
    remaining = iter(files)
    lines = [
        replace(line, digits=tuple(replace(digit, image=next(remaining)) for digit in line.digits))
        for line in result.lines
    ]
    return replace(result, lines=tuple(lines))


class _LazyConnection(Generic[AnyConnection]):
    """Connection of a client and its copies, made at the first call. Thread-safe.

    gRPC's threads don't survive a fork, and an asyncio channel belongs to the running event loop.
    """

    def __init__(self, connect: Callable[[], AnyConnection]) -> None:
        self._connect: Callable[[], AnyConnection] = connect
        self._lock = Lock()
        self._connection: AnyConnection | None = None
        self._loop: object = None
        self._is_closed = False

    def get(self, loop: object) -> AnyConnection:
        """Return the connection, of the running event `loop` if any. Raise ClientClosedError."""
        with self._lock:
            if self._is_closed:
                raise ClientClosedError("the client is closed; create another one")
            if self._connection is None:
                self._connection, self._loop = self._connect(), loop
            check_loop(self._loop, loop)
            return self._connection

    def end(self) -> AnyConnection | None:
        """End the use of the connection, and return it: the caller closes it."""
        with self._lock:
            self._is_closed = True
            connection, self._connection = self._connection, None
            return connection


def _memory(picture: Any) -> int:
    """Return the bytes of a file or of pixels in memory; 0 for a path."""
    if isinstance(picture, (bytes, bytearray)):
        return len(picture)
    if hasattr(picture, "getbands"):
        pixels: int = picture.width * picture.height
        return pixels * len(picture.getbands())
    return int(getattr(picture, "nbytes", 0))
