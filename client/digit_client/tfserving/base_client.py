"""Base of the gRPC clients: settings, the connection, and flows of calls without their sending."""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from typing import Generic, Self, TypeAlias, TypeVar

import grpc

from digit_client._bulk import OnError
from digit_client._exceptions import DigitError, without_tracebacks
from digit_client._flows import Flow
from digit_client._inputs import ImageSource
from digit_client._options import check_request_id, check_timeout, default_timeout, new_request_id
from digit_client._retries import Deadline, Retrier, RetryPolicy
from digit_client._types import Prediction, Reading
from digit_client.tfserving.codec import ModelRef
from digit_client.tfserving.model_server import AsyncModelServer, ModelServer
from digit_client.tfserving.pictures import Picture
from digit_client.tfserving.recognition import Call, Recognition, RecognitionFlow

_DEFAULT_TARGET = "127.0.0.1:8500"

Result = TypeVar("Result", Prediction, Reading)
Server = TypeVar("Server", ModelServer, AsyncModelServer)
Recognize: TypeAlias = Callable[[Recognition, Sequence[Picture]], RecognitionFlow[Result]]
Outcome: TypeAlias = Result | DigitError | OSError


@dataclass(frozen=True, slots=True)
class _Settings:
    """Settings of a client. They are all that a copy in another process needs."""

    target: str
    name: str
    timeout: float
    retries: RetryPolicy


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a call, completed by the client's settings."""

    model: ModelRef
    timeout: float
    request_id: str | None


class BaseClient(ABC, Generic[Server]):
    """Common base of the blocking and the asyncio client: settings, and flows without sending their calls."""

    def __init__(
        self,
        target: str | None = None,
        *,
        name: str = "digits",
        credentials: grpc.ChannelCredentials | None = None,
        timeout: float | None = None,
        retries: RetryPolicy | None = None,
    ) -> None:
        timeout = default_timeout() if timeout is None else check_timeout(timeout)
        target = target or os.environ.get("DIGITS_MODEL_SERVER") or _DEFAULT_TARGET
        self._connect(_Settings(target, name, timeout, retries or RetryPolicy()), credentials)

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

    def _connect(self, settings: _Settings, credentials: grpc.ChannelCredentials | None) -> None:
        self._settings = settings
        self._credentials = credentials
        self._retrier = Retrier(settings.retries)
        self._connection: _Connection[Server] = _Connection(
            partial(self._new_server, settings.target, credentials)
        )

    @abstractmethod
    def _new_server(self, target: str, credentials: grpc.ChannelCredentials | None) -> Server:
        """Return a new connection to the model server."""

    def _resolve(
        self,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Options:
        model = ModelRef(self.name, version, label)
        return Options(
            model,
            self.timeout if timeout is None else check_timeout(timeout),
            None if request_id is None else check_request_id(request_id),
        )

    def _image_flow(
        self, recognize: Recognize[Result], options: Options, image: ImageSource
    ) -> Flow[Call, Result]:
        """Return the result for one image."""
        (outcome,) = yield from recognize(self._recognition(options), [Picture.of(image)])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _batch_flow(
        self, recognize: Recognize[Result], options: Options, on_error: OnError, batch: Sequence[Picture]
    ) -> Flow[Call, list[tuple[int, Outcome[Result]]]]:
        """Return the outcome of each picture of a batch with its position."""
        outcomes: Sequence[Outcome[Result]]
        try:
            outcomes = yield from recognize(self._recognition(options), batch)
        except DigitError as error:
            if on_error == "raise":
                raise
            outcomes = [without_tracebacks(error)] * len(batch)
        for outcome in outcomes:
            if on_error == "raise" and isinstance(outcome, Exception):
                raise outcome
        return [(picture.index or 0, outcome) for picture, outcome in zip(batch, outcomes, strict=True)]

    def _recognition(self, options: Options) -> Recognition:
        request_id = options.request_id or new_request_id()
        return Recognition(options.model, request_id, self._connection.server().known_task)


class CallsDeadline:
    """Deadline over the calls of a flow: its time runs while a call does, not while images are prepared."""

    def __init__(self, seconds: float) -> None:
        self._deadline = Deadline(seconds)
        self._paused_at = time.monotonic()

    @contextmanager
    def running(self) -> Iterator[Deadline]:
        """Let the time run during the block."""
        self._deadline.extend(time.monotonic() - self._paused_at)
        try:
            yield self._deadline
        finally:
            self._paused_at = time.monotonic()


class _Connection(Generic[Server]):
    """Connection of a client and its copies, made at the first call. Thread-safe.

    gRPC's threads don't survive a fork, and an asyncio channel belongs to the running event loop.
    """

    def __init__(self, connect: Callable[[], Server]) -> None:
        self._connect: Callable[[], Server] = connect
        self._lock = Lock()
        self._server: Server | None = None
        self._is_closed = False

    def server(self) -> Server:
        """Return the connected server. Raise RuntimeError after the end of the connection."""
        with self._lock:
            if self._is_closed:
                raise RuntimeError("the client is closed")
            if self._server is None:
                self._server = self._connect()
            return self._server

    def close(self) -> Server | None:
        """End the connection. Return the connected server, which the caller closes."""
        with self._lock:
            self._is_closed = True
            server, self._server = self._server, None
            return server
