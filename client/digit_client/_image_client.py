"""Methods of all clients: predictions and readings of one image, of many, and of any number."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, Unpack

from digit_client._batches import Batch, Images, Splitter
from digit_client._concurrency import (
    AsyncResults,
    LazyConnection,
    Results,
    async_collect,
    async_send_many,
    check_many,
    collect,
    send_many,
)
from digit_client._flow import Flow
from digit_client._options import CallOptions, Options, ReadOptions, RequestOptions, check_timeout, parse
from digit_client._outcomes import Counter, Form, Outcomes, Progress
from digit_client._retries import Deadline, Retrier, RetryPolicy, default_timeout
from digit_core.backends import ASYNCIO, BLOCKING, Backend, run
from digit_core.errors import DigitError, ImageError, without_tracebacks
from digit_core.inputs import ImageSource
from digit_core.options import Field, nearest
from digit_core.results import Prediction, Reading, Result

_CONCURRENCY = 32
"""Default of the largest number of requests in flight."""


def given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings without those that are None, which have their default."""
    return {name: value for name, value in settings.items() if value is not None}


@dataclass(frozen=True, slots=True)
class _Call(Generic[Result]):
    """Call for many images; each has `parts` results, of this type."""

    kind: type[Result]
    batches: Iterator[Batch]
    flow: Flow
    parts: int


class BaseClient(ABC):
    """Work of a client, written once in coroutines: a subclass splits images into batches and sends them.

    The type of a result, Prediction or Reading, says what is asked for.
    """

    _backend: ClassVar[Backend]
    _settings: Mapping[str, Any]
    """Settings of the client. They are all that a copy in another process needs."""

    @property
    def timeout(self) -> float:
        """Seconds for each attempt of a request, counted from when it is sent."""
        return float(self._settings["timeout"])

    def _start(self, settings: Mapping[str, Any], connect: Callable[[], Any]) -> None:
        self._configure({"timeout": None, "retries": RetryPolicy(), **settings})
        self._retrier = Retrier(self._settings["retries"], self._backend.sleep)
        self._connection: LazyConnection[Any] = LazyConnection(connect, self._backend.loop)

    def _configure(self, settings: Mapping[str, Any]) -> None:
        timeout = settings["timeout"]
        seconds = default_timeout() if timeout is None else check_timeout(timeout)
        self._settings = {**settings, "timeout": seconds}

    def _copy(self, changes: Mapping[str, Any]) -> Self:
        """Return a client with the changes that are not None; it shares this one's connection and budget."""
        client = object.__new__(type(self))
        client.__dict__.update(self.__dict__)
        client._configure({**self._settings, **given(changes)})
        client._retrier = replace(self._retrier, policy=client._settings["retries"])
        return client

    def _check_names(self, method: str, names: Iterable[str], known: Any) -> None:
        """Raise TypeError, as Python does, for a keyword argument that the TypedDict lacks."""
        for name in {*names} - known.__annotations__.keys():
            raise TypeError(
                f"{type(self).__name__}.{method}() got an unexpected keyword argument {name!r}; "
                f"{nearest(name, known.__annotations__)}"
            )

    def _options(self, method: str, given: Mapping[str, Any]) -> Options:
        """Return the options of a call of this method. Raise TypeError for another name."""
        known: Any = RequestOptions
        if "predict" in method or "read" in method:
            known = CallOptions if "predict" in method else ReadOptions
        self._check_names(method, given, known)
        options = parse(known, given)
        if method == "read" and (options.parts > 1 or options.fields):
            raise ValueError("`read` reads one part; `read_many` reads several, `read_form` a form")
        if method == "read_form" and not options.fields:
            raise ValueError('form: name the fields, such as {"date": Field((12, 8, 200, 40))}')
        return options

    @abstractmethod
    async def _ready(self, timeout: float | None) -> bool:
        """Tell with one request, without retries, whether the service answers."""

    @abstractmethod
    async def _close(self) -> None:
        """Close the connections."""

    def _timeout(self, options: Options) -> float:
        return self.timeout if options.timeout is None else options.timeout

    async def _answer(self, kind: type[Result], image: ImageSource, options: Options) -> Result:
        """Return the result of an image. Raise its error."""
        (result,) = await self._send_image(kind, image, options)
        if isinstance(result, ImageError):
            result.index = None
        if isinstance(result, Exception):
            raise result
        return result

    async def _read_form(self, image: ImageSource, given: Mapping[str, Any]) -> Form:
        """Return the reading or the error of each field. Raise an error that all of them have."""
        options = self._options("read_form", given)
        results = await self._send_image(Reading, image, options)
        form = Form(zip(options.fields, results, strict=True), image)
        if all(isinstance(each, Exception) for each in form):
            form.raise_for_errors()
        return form

    @abstractmethod
    async def _send_image(
        self, kind: type[Result], image: ImageSource, options: Options
    ) -> list[Result | DigitError | OSError]:
        """Return the result of each part of an image, or its error. Raise the error of the request."""

    @abstractmethod
    def _splitter(self, kind: type[Result], options: Options, parse: Callable[..., Options]) -> Splitter:
        """Return what splits the images of a call into requests."""

    @abstractmethod
    async def _ask(
        self, kind: type[Result], batch: Batch, flow: Flow, timeout: float
    ) -> list[tuple[int, Result | DigitError | OSError]]:
        """Return the position and the result of each image. Raise the error of the request."""

    def _begin(self, method: str, images: Images, given: Mapping[str, Any], concurrency: int) -> _Call[Any]:
        """Return a call of this method, whose images are read as they are needed."""
        kind: Any = Prediction if "predict" in method else Reading
        options = self._options(method, given)
        check_many(images, concurrency)
        splitter = self._splitter(kind, options, lambda own: self._options(method, {**given, **own}))
        flow = Flow(self._retrier, concurrency, self._timeout(options), Deadline(options.deadline))
        return _Call(kind, splitter.split(images, options), flow, options.parts)

    async def _send_batch(
        self, call: _Call[Result], batch: Batch
    ) -> list[tuple[int, Result | DigitError | OSError]]:
        """Return the position of each image, and its result or error.

        A request that fails is divided, so that images that take too long together come one after another,
        and one that makes its request fail does so alone.
        """
        remaining, outcomes = [batch], list[tuple[int, Any]]()
        while remaining:
            batch = remaining.pop()
            try:
                send = partial(self._ask, call.kind, batch, call.flow)
                results = await call.flow.run(send, len(batch.images) > 1)
            except DigitError as error:
                if isinstance(error, ImageError) and len(batch.images) == 1:
                    error.index = batch.start
                results = batch.with_positions([without_tracebacks(error)] * len(batch.indices))
            if results is None:
                remaining += batch.halves()
            else:
                outcomes += results
        return outcomes


class ImageClient(BaseClient):
    """Blocking methods. Threads may share a client."""

    _backend = BLOCKING

    def predict(self, image: ImageSource, **options: Unpack[CallOptions]) -> Prediction:
        """Classify one image. For a model of digits, a refusal of the image is a prediction as well.

        `image` is a path, the bytes of an image file, an open binary file, a Pillow image or a NumPy array.
        The options are those of CallOptions: `version` or `label`, `min_is_digit`, `min_confidence`,
        `include="image"`, `timeout` in seconds, `request_id`.
        """
        return run(self._answer(Prediction, image, self._options("predict", options)))

    def predict_many(
        self,
        images: Images,
        *,
        concurrency: int = _CONCURRENCY,
        progress: Progress = False,
        **options: Unpack[CallOptions],
    ) -> Outcomes[Prediction | DigitError | OSError]:
        """Classify the images, in their order: each has a prediction, or an error in its place.

        An error is an ImageError, the OSError of a path that can't be read, or that of a request that failed
        at every attempt; the list's `raise_for_errors()` raises the first one. As many requests are in flight
        as the service answers in time, at most `concurrency`. `timeout` bounds each attempt from when it is
        sent, `deadline` the whole call. A service that restarts costs time and no result: attempts go on, as
        RetryPolicy says. `progress` is True for tqdm's bar, or a function of the numbers of results so far
        and in all.

        `images` are those of `predict`, or pairs of an image and its own options, such as `("meter.jpg",
        {"expect": "#####"})`; an array uint8 [n, *shape] of the shape of the model's task is the fastest
        input. The options are those of CallOptions.
        """
        call = self._begin("predict_many", images, options, concurrency)
        return collect(self._results(call), Counter(progress, images, call.parts, call.kind))

    def iter_predict(
        self, images: Images, *, concurrency: int = _CONCURRENCY, **options: Unpack[CallOptions]
    ) -> Results[Prediction | DigitError | OSError]:
        """Classify any number of images: yield the position of each, and its prediction or error.

        The order is that of the answers. Images are read as requests end, so that memory is bounded. The
        arguments are those of `predict_many`.
        """
        return self._results(self._begin("iter_predict", images, options, concurrency))

    def read(self, image: ImageSource, **options: Unpack[ReadOptions]) -> Reading:
        """Read all digits on one image, in lines; without a digit, the reading is empty.

        `image` is as for `predict`. The options are those of ReadOptions: also `expect` and `check`, the
        form of the number, `box` and `turn`.

        Raise ReadingNotSupportedError if the model's classes are not the ten digits, ReaderMissingError if
        the service has no reader, TooManyDigitsError for more digits than a gateway's limit.
        """
        return run(self._answer(Reading, image, self._options("read", options)))

    def read_form(
        self, image: ImageSource, form: Mapping[str, Field], /, **options: Unpack[ReadOptions]
    ) -> Form:
        """Read the fields of one image: each has a name, a box, and mostly what is expected there.

            form = client.read_form("cheque.jpg", {"date": Field((410, 20, 180, 40), expect="date"), …})
            print(form["date"].text, form["date"].refusal)

        The image is decoded once, and its fields share calls of the model. The answer is a list of readings,
        in the order of the fields; with a field's name as index, it returns the reading, or raises the error
        of this field, such as a box outside of the image. The other options are those of ReadOptions. Raise
        an error that all fields have, and those of `read`.
        """
        return run(self._read_form(image, {**options, "form": form}))

    def read_many(
        self,
        images: Images,
        *,
        concurrency: int = _CONCURRENCY,
        progress: Progress = False,
        **options: Unpack[ReadOptions],
    ) -> Outcomes[Reading | DigitError | OSError]:
        """Read all digits on each image, in order; arguments and errors are as for `predict_many`.

        With several boxes or a form, each image has as many readings or errors, one after another.
        """
        call = self._begin("read_many", images, options, concurrency)
        return collect(self._results(call), Counter(progress, images, call.parts, call.kind))

    def iter_read(
        self, images: Images, *, concurrency: int = _CONCURRENCY, **options: Unpack[ReadOptions]
    ) -> Results[Reading | DigitError | OSError]:
        """Read any number of images: yield the position of each, and its reading or error, as they come.

        The arguments are those of `iter_predict`. With several boxes, a position is that of a part.
        """
        return self._results(self._begin("iter_read", images, options, concurrency))

    def ready(self, *, timeout: float | None = None) -> bool:
        """Tell whether the service would answer with the client's model: one request, without retries.

        False if it says that it is not ready, or can't be reached within `timeout` seconds (default: the
        client's).
        """
        return run(self._ready(timeout))

    def close(self) -> None:
        """Close the connections, except the caller's `http_client`. The client can't be used afterwards."""
        run(self._close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _results(self, call: _Call[Result]) -> Results[Result | DigitError | OSError]:
        def send(batch: Batch) -> list[tuple[int, Result | DigitError | OSError]]:
            return run(self._send_batch(call, batch))

        return send_many(call.batches, send, call.flow)


class AsyncImageClient(BaseClient):
    """asyncio methods, with the arguments, results and errors of the blocking ones."""

    _backend = ASYNCIO

    async def predict(self, image: ImageSource, **options: Unpack[CallOptions]) -> Prediction:
        """Classify one image, as Client.predict does."""
        return await self._answer(Prediction, image, self._options("predict", options))

    async def predict_many(
        self,
        images: Images,
        *,
        concurrency: int = _CONCURRENCY,
        progress: Progress = False,
        **options: Unpack[CallOptions],
    ) -> Outcomes[Prediction | DigitError | OSError]:
        """Classify each image, as Client.predict_many does."""
        call = self._begin("predict_many", images, options, concurrency)
        return await async_collect(self._results(call), Counter(progress, images, call.parts, call.kind))

    def iter_predict(
        self, images: Images, *, concurrency: int = _CONCURRENCY, **options: Unpack[CallOptions]
    ) -> AsyncResults[Prediction | DigitError | OSError]:
        """Classify any number of images, as Client.iter_predict does."""
        return self._results(self._begin("iter_predict", images, options, concurrency))

    async def read(self, image: ImageSource, **options: Unpack[ReadOptions]) -> Reading:
        """Read all digits on one image, as Client.read does."""
        return await self._answer(Reading, image, self._options("read", options))

    async def read_form(
        self, image: ImageSource, form: Mapping[str, Field], /, **options: Unpack[ReadOptions]
    ) -> Form:
        """Read the fields of one image, as Client.read_form does."""
        return await self._read_form(image, {**options, "form": form})

    async def read_many(
        self,
        images: Images,
        *,
        concurrency: int = _CONCURRENCY,
        progress: Progress = False,
        **options: Unpack[ReadOptions],
    ) -> Outcomes[Reading | DigitError | OSError]:
        """Read all digits on each image, as Client.read_many does."""
        call = self._begin("read_many", images, options, concurrency)
        return await async_collect(self._results(call), Counter(progress, images, call.parts, call.kind))

    def iter_read(
        self, images: Images, *, concurrency: int = _CONCURRENCY, **options: Unpack[ReadOptions]
    ) -> AsyncResults[Reading | DigitError | OSError]:
        """Read any number of images, as Client.iter_read does."""
        return self._results(self._begin("iter_read", images, options, concurrency))

    async def ready(self, *, timeout: float | None = None) -> bool:
        """Tell whether the service would answer, as Client.ready does."""
        return await self._ready(timeout)

    async def close(self) -> None:
        """Close the connections, as Client.close does."""
        await self._close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _results(self, call: _Call[Result]) -> AsyncResults[Result | DigitError | OSError]:
        return async_send_many(call.batches, partial(self._send_batch, call), call.flow)
