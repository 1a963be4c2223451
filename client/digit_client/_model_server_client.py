"""gRPC clients of TensorFlow Serving, with the interface of the HTTP clients and without a gateway."""

import operator
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Self, TypeAlias
from uuid import uuid4

import grpc

from digit_client._batches import Batch, Splitter
from digit_client._flow import Flow
from digit_client._image_client import AsyncImageClient, BaseClient, ImageClient, given
from digit_client._options import Options, check_timeout
from digit_client._retries import Deadline, RetryPolicy
from digit_core import inputs as _inputs
from digit_core.artifact.task_card import READER_NAME, TaskCard
from digit_core.backends import Backend
from digit_core.errors import (
    DigitError,
    ImageError,
    ModelNotFoundError,
    ReaderMissingError,
    adding_request_id,
)
from digit_core.inputs import ImageSource, to_png
from digit_core.recognition import (
    Classify,
    Find,
    Outcome,
    PictureError,
    Recognition,
    Steps,
    answer,
    to_pixels,
)
from digit_core.results import Prediction, Reading, Result, add_images
from digit_core.tfserving.calls import check_target
from digit_core.tfserving.codec import ModelRef
from digit_core.tfserving.connection import AsyncConnection, ServedVersion

_DEFAULT_TARGET = "127.0.0.1:8500"
_MAX_ITEMS: dict[Any, int] = {Prediction: 64, Reading: 8}
"""Most pictures in a batch, which is sent again as a whole: their digits share calls."""
# Most bytes of files and pixels in a batch. Paths don't count: their files are read one after the other.
_MAX_BYTES = 32 * 1024 * 1024
_Call: TypeAlias = Callable[[float], Awaitable[Any]]
"""Call to the model server, which is to be answered within so many seconds."""


class GrpcClient(BaseClient):
    """Common base of the blocking and the asyncio client."""

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
        target = check_target(target or os.environ.get("DIGITS_MODEL_SERVER") or _DEFAULT_TARGET)
        model = ModelRef(name, version_label=label)
        settings = {"target": target, "model": model, "timeout": timeout, "retries": retries}
        self._set_up(given(settings), credentials)

    @property
    def target(self) -> str:
        """Address of the model server."""
        return str(self._settings["target"])

    @property
    def name(self) -> str:
        """Name of the model."""
        return str(self._settings["model"].name)

    def with_options(self, *, timeout: float | None = None, retries: RetryPolicy | None = None) -> Self:
        """Return a client with other settings that shares the connection of this one.

        Closing either closes the connection of both.
        """
        return self._copy({"timeout": timeout, "retries": retries})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.target!r}, name={self.name!r}, timeout={self.timeout:g})"

    def __getstate__(self) -> Mapping[str, Any]:
        if self._credentials is not None:
            raise TypeError("a client with credentials can't be pickled; create it in each process")
        return self._settings

    def __setstate__(self, settings: Mapping[str, Any]) -> None:
        self._set_up(settings, None)

    def _set_up(self, settings: Mapping[str, Any], credentials: grpc.ChannelCredentials | None) -> None:
        self._credentials = credentials
        self._start(settings, partial(AsyncConnection, settings["target"], credentials, self._backend))

    async def _ready(self, timeout: float | None) -> bool:
        seconds = self.timeout if timeout is None else check_timeout(timeout)
        connection = self._connection.get()
        try:
            await connection.resolve(self._settings["model"], deadline=time.monotonic() + seconds)
        except DigitError:
            return False
        return True

    async def _close(self) -> None:
        if connection := self._connection.end():
            await connection.close()

    async def _send_image(
        self, kind: type[Result], image: ImageSource, options: Options
    ) -> list[Result | DigitError | OSError]:
        read = await self._backend.to_thread(_read_once, image)
        results = await self._recognize(kind, Batch(0, [read], options), partial(self._call, options))
        return [result for _, result in results]

    async def _call(self, options: Options, send: _Call) -> Any:
        """Return what a call to the model server answers, after retries."""
        return await self._retrier.run(send, self._timeout(options), Deadline(options.deadline))

    def _splitter(self, kind: type[Result], options: Options, parse: Callable[..., Options]) -> Splitter:
        return Splitter(_read_once, parse, _MAX_ITEMS[kind], _MAX_BYTES)

    async def _ask(
        self, kind: type[Result], batch: Batch, flow: Flow, timeout: float
    ) -> list[tuple[int, Result | DigitError | OSError]]:
        async def call(send: _Call) -> Any:
            if flow.is_stopped:
                raise CancelledError
            return await send(timeout)

        return await self._recognize(kind, batch, call)

    async def _recognize(
        self, kind: type[Result], batch: Batch, call: Callable[[_Call], Awaitable[Any]]
    ) -> list[tuple[int, Result | DigitError | OSError]]:
        """Return the position and the result of each picture. `call` awaits a call with its timeout."""
        options = batch.options
        model: ModelRef = self._settings["model"]
        reader = replace(model, name=READER_NAME)
        if options["version"] is not None or options["label"] is not None:
            model = ModelRef(self.name, options["version"], options["label"])
        request_id = options.request_id or uuid4().hex
        served: ServedVersion
        connection = self._connection.get()

        def ask_server(method: Callable[..., Awaitable[Any]], **given: Any) -> Awaitable[Any]:
            async def attempt(timeout: float) -> Any:
                return await method(**given, deadline=time.monotonic() + timeout)

            return call(attempt)

        async def ask(request: Classify | Find) -> Any:
            nonlocal served
            if isinstance(request, Classify):
                answers = await ask_server(
                    connection.predict, batch=request.batch, served=served, request_id=request_id
                )
                if isinstance(answers, ServedVersion):
                    served = answers
                    return served.card
                # The version that answers first answers all further calls.
                served = served.pinned(answers[0].model_version)
                return answers
            try:
                return await ask_server(
                    connection.find, page=request.page, model=reader, request_id=request_id
                )
            except ModelNotFoundError as error:
                raise ReaderMissingError(
                    f"{error.message}; `digits train` publishes the model {READER_NAME}"
                ) from error

        with adding_request_id(request_id):
            served = await ask_server(connection.served, model=model)
            recognition = Recognition(served.card, options=options)
            steps: Any = (recognition.predict if kind is Prediction else recognition.read)(batch.images)
            outcomes = await _drive(steps, ask, self._backend)
            results: list[tuple[int, Any]] = await self._backend.to_thread(
                _to_results, outcomes, served.card, batch.start, request_id, options
            )
            return results


class ModelServerClient(ImageClient, GrpcClient):
    """gRPC client of TensorFlow Serving. This process decodes and prepares the images.

        with ModelServerClient("127.0.0.1:8500", name="flowers") as client:
            prediction = client.predict("rose.jpg")
            print(prediction.label)

    `target` is host:port or unix:path (default: DIGITS_MODEL_SERVER, or 127.0.0.1:8500), `name` the model's
    name. Calls that name no version and no label are answered by the version labelled `label`; None stands
    for the newest one, on a model server without labels. The model's task card says how images are prepared;
    the client asks for it once per version. `timeout` in seconds (default: DIGITS_TIMEOUT, or 10) bounds each
    attempt of a call to the model server, from when it is sent; an image needs one call to four.
    `credentials` from grpc.ssl_channel_credentials enable TLS.

    Images, results, errors and options are those of Client. The client connects at its first call, an asyncio
    client in that call's event loop. It can be pickled unless it was given credentials. Threads may share a
    ModelServerClient.
    """


class AsyncModelServerClient(AsyncImageClient, GrpcClient):
    """asyncio gRPC client of TensorFlow Serving.

        async with AsyncModelServerClient("127.0.0.1:8500", name="flowers") as client:
            prediction = await client.predict("rose.jpg")
            print(prediction.label)

    The arguments are those of ModelServerClient.
    """


def _read_once(image: ImageSource) -> ImageSource:
    """Read an open file, which can be read only once; leave other images as they are."""
    return _inputs.read_source(image) if hasattr(image, "read") else image


async def _drive(
    steps: Steps[Result], ask: Callable[[Classify | Find], Awaitable[Any]], backend: Backend
) -> list[Outcome[Result]]:
    """Return the outcomes, in order. With asyncio, threads prepare the pictures."""
    outcomes: list[Outcome[Result]] = []
    request = await backend.to_thread(_advance, steps, None, outcomes)
    while request is not None:
        answered: Any
        try:
            answered = await ask(request)
        except Exception as error:
            answered = error
        request = await backend.to_thread(_advance, steps, answered, outcomes)
    return outcomes


def _advance(steps: Steps[Result], answered: Any, outcomes: list[Outcome[Result]]) -> Classify | Find | None:
    """Return the next request for a model, None at the end; prepare pictures on the way."""
    with suppress(StopIteration):
        step = steps.throw(answered) if isinstance(answered, Exception) else steps.send(answered)
        while not isinstance(step, (Classify, Find)):
            if isinstance(step, Outcome):
                outcomes.append(step)
                step = next(steps)
            else:
                step = answer(steps, step, operator.call)
        return step
    return None


def _to_results(
    outcomes: Iterable[Outcome[Result]], task: TaskCard, start: int, request_id: str, options: Options
) -> list[tuple[int, Result | PictureError]]:
    """Return the position and the result of each picture, counted from `start`, with the request's ID."""
    results: list[tuple[int, Result | PictureError]] = []
    for index, outcome in enumerate(outcomes, start * options.parts):
        result = outcome.result
        if isinstance(result, ImageError):
            result.index, result.request_id = index // options.parts, request_id
        elif not isinstance(result, Exception):
            files = [to_png(to_pixels(row, task)) for row in outcome.inputs if "image" in options["include"]]
            result = replace(add_images(result, files), request_id=request_id)
        results.append((index, result))
    return results
