"""HTTP clients of the gateway: settings, requests, responses, and errors."""

import asyncio
import logging
import os
import platform
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import metadata
from types import MappingProxyType
from typing import Any, Generic, Literal, Self, TypeAlias, TypedDict, TypeVar, Unpack
from uuid import uuid4

import httpx

from digit_client import _api
from digit_client._batches import Batch, Splitter
from digit_client._flow import Flow
from digit_client._image_client import AsyncImageClient, BaseClient, ImageClient, given
from digit_client._options import DEFAULT_URL, Boxes, Feedback, Options, RequestOptions
from digit_client._retries import Deadline, RetryPolicy
from digit_client._shrinking import Shrunk, check_size, shrink
from digit_core.backends import run
from digit_core.errors import (
    ClientClosedError,
    ConnectionFailedError,
    DeadlineExceededError,
    DigitError,
    OverloadedError,
    ServiceError,
    UnavailableError,
    adding_request_id,
)
from digit_core.inputs import ImageSource, has_frames, read_source
from digit_core.results import Models, Prediction, Reading, Result

_logger = logging.getLogger("digit_client")

_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=100)
"""Limits of connections: a request that waited for one would lose some of its time."""
_SHARED_BYTES = 65_536
"""Most bytes of the files that share a request: a photograph takes as long as many small pictures."""
_NO_REASONS = ("", "All connection attempts failed")
"""Texts of httpx's errors about connections that tell no reason."""
_UNKNOWN_HOST = ("Name or service not known", "nodename nor servname", "getaddrinfo failed")
"""Parts of the reason on Linux, macOS and Windows, if a name has no address."""
_SMALL_BYTES = 262_144
"""Largest file of which the client knows, without asking, that every service takes it."""

_Answer = TypeVar("_Answer")
_Attempt: TypeAlias = Callable[[float], Awaitable[Any]]
"""Request, which is to be answered within so many seconds."""
_HttpClient = TypeVar("_HttpClient", httpx.Client, httpx.AsyncClient)


class ClientSettings(TypedDict, total=False):
    """Settings of a client; one that is missing or None has its default."""

    model: str | None
    api_key: str | None
    timeout: float | None
    retries: RetryPolicy | None
    default_headers: Mapping[str, str] | None
    keep_response: bool | None
    keep_picture: bool | None
    resize: Literal["auto", "never"] | None


class _Secret(str):
    """API key that the repr of a client's settings does not show."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


@dataclass(frozen=True, slots=True)
class _Route(Generic[_Answer]):
    """Route of the gateway, and the parser of its responses' documents.

    `max_files` is the largest number of files in a request: a page is alone in its own, so that its deadline
    is that of no other one.
    """

    method: str
    path: str
    parse: Callable[..., _Answer]
    max_files: int = 0


_FEEDBACK: _Route[Feedback] = _Route("POST", "/v1/feedback", _api.parse_feedback)
_READY: _Route[None] = _Route("GET", "/readyz", lambda _: None)
_MODELS: _Route[Models] = _Route("GET", "/v1/models", _api.parse_models)
_ROUTES: dict[Any, _Route[Any]] = {
    Prediction: _Route("POST", "/v1/predict", _api.parse_predictions, 16),
    Reading: _Route("POST", "/v1/read", _api.parse_readings, 1),
}


class GatewayClient(BaseClient, Generic[_HttpClient]):
    """Common base of the blocking and the asyncio client."""

    def __init__(
        self,
        url: str | None = None,
        *,
        http_client: _HttpClient | None = None,
        **settings: Unpack[ClientSettings],
    ) -> None:
        self._check_names("__init__", settings, ClientSettings)
        url = _check_url(url or os.environ.get("DIGITS_URL") or DEFAULT_URL)
        api_key = settings.get("api_key") or os.environ.get("DIGITS_API_KEY")
        self._set_up({**given(settings), "url": url, "api_key": api_key or ""}, http_client)

    @property
    def url(self) -> str:
        """The gateway's URL."""
        return str(self._settings["url"])

    def with_options(self, **settings: Unpack[ClientSettings]) -> Self:
        """Return a client with other settings that shares the connections and the retry budget of this one.

        `default_headers` replace those of this client. Closing either client closes the connections of both.
        """
        self._check_names("with_options", settings, ClientSettings)
        return self._copy(settings)

    def __repr__(self) -> str:
        url, model = _without_password(self.url), self._settings.get("model")
        return f"{type(self).__name__}({url!r}, model={model!r}, timeout={self.timeout:g})"

    def __getstate__(self) -> Mapping[str, Any]:
        if self._http_client is not None:
            raise TypeError("a client with its own http_client can't be pickled; create it in each process")
        return self._settings

    def __setstate__(self, settings: Mapping[str, Any]) -> None:
        self._set_up(settings, None)

    def _set_up(self, settings: Mapping[str, Any], http_client: _HttpClient | None) -> None:
        self._http_client: _HttpClient | None = http_client
        self._process_id = os.getpid()
        self._models: dict[str | None, Models] = {}
        """What the service says about a model and its limits, shared with the copies of this client."""
        self._said: list[str] = []
        self._start(settings, self._connect)

    def _configure(self, settings: Mapping[str, Any]) -> None:
        default_headers = httpx.Headers(settings.get("default_headers"))
        own = {"api_key": _Secret(settings["api_key"]), "default_headers": default_headers}
        super()._configure({**settings, **own})
        self._headers = httpx.Headers({"User-Agent": _user_agent()} | _api.auth_headers(settings["api_key"]))
        self._headers.update(default_headers)

    def _http(self) -> _HttpClient:
        """Return the caller's HTTP client, or that of this client. Raise ClientClosedError."""
        if self._http_client is None:
            http: _HttpClient = self._connection.get()
            return http
        if self._process_id != os.getpid():
            raise RuntimeError("a client with its own http_client can't be used after a fork")
        if self._http_client.is_closed:
            raise ClientClosedError("the http_client is closed; create another client")
        return self._http_client

    @abstractmethod
    def _connect(self) -> _HttpClient:
        """Return a new HTTP client."""

    @abstractmethod
    async def _send(
        self, http: _HttpClient, request: Mapping[str, Any], timeout: float
    ) -> tuple[httpx.Response, bytes]:
        """Send a request with httpx's arguments; return the response, and its content within so many seconds.

        httpx's timeout bounds each wait: for a connection, the headers, a chunk of the body.
        """

    async def _ready(self, timeout: float | None) -> bool:
        try:
            await self._call(_READY, Options(timeout=timeout), is_retried=False)
        except (ConnectionFailedError, DeadlineExceededError, OverloadedError, UnavailableError):
            return False
        return True

    async def _send_image(
        self, kind: type[Result], image: ImageSource, options: Options
    ) -> list[Result | DigitError | OSError]:
        data = await self._backend.to_thread(self._read, image)
        timeout, deadline = self._timeout(options), Deadline(options.deadline)

        def call(send: _Attempt) -> Awaitable[Any]:
            return self._retrier.run(send, timeout, deadline)

        return await self._exchange(kind, Batch(0, [data], options, is_only=True), call)

    def _splitter(self, kind: type[Result], options: Options, parse: Callable[..., Options]) -> Splitter:
        return Splitter(self._read, parse, _ROUTES[kind].max_files, _SHARED_BYTES)

    async def _ask(
        self, kind: type[Result], batch: Batch, flow: Flow, timeout: float
    ) -> list[tuple[int, Result | DigitError | OSError]]:
        return batch.with_positions(await self._exchange(kind, batch, lambda send: send(timeout)))

    async def _exchange(
        self, kind: type[Result], batch: Batch, call: Callable[[_Attempt], Awaitable[Any]]
    ) -> list[Result | DigitError | OSError]:
        """Return the outcome of each part of each image. `call` awaits a request with its timeout."""
        images: Any = batch.images
        shrunk = Shrunk(b"")
        if len(images) == 1 and isinstance(images[0], bytes):
            shrunk = await self._fit(images[0], batch.options)
            images = [shrunk.data]
        sent = replace(batch, images=images, options=_with_boxes(batch.options, shrunk))
        indices = [index for index in batch.indices if not isinstance(images[index - batch.start], Exception)]
        results: Iterator[Any] = iter(())
        if indices:
            arguments = await self._backend.to_thread(_api.encode_batch, sent)
            request = self._request(_ROUTES[kind], sent.options, arguments)
            results = iter(await call(partial(self._send_once, _ROUTES[kind], request, indices=indices)))
        outcomes: list[Any] = []
        for image in (batch.images[index - batch.start] for index in batch.indices):
            outcome: Any = image if isinstance(image, Exception) else next(results)
            if not isinstance(outcome, Exception):
                outcome = shrunk.to_given(outcome)
                if self._settings.get("keep_picture"):
                    outcome = replace(outcome, picture=read_source(image))
            outcomes.append(outcome)
        return outcomes

    def _read(self, image: ImageSource) -> bytes:
        """Return an image as a file. Say once that only the first frame of an animation is read."""
        data = read_source(image)
        if has_frames(data) and not self._said:
            self._said.append(name := str(image) if isinstance(image, (str, os.PathLike)) else "an image")
            _logger.warning("%s is an animation: its first frame is read", name)
        return data

    async def _fit(self, data: bytes, options: Options) -> Shrunk:
        """Return the picture as it is sent. Raise ImageTooLargeError for one that the service refuses."""
        models = await self._limits() if len(data) > _SMALL_BYTES else None
        if models is None or models.max_body is None:
            return Shrunk(data)
        max_bytes = _api.room(models.max_body, options)
        if self._settings.get("resize") == "never":
            check_size(data, max_bytes)
        if len(data) <= max_bytes:
            return Shrunk(data)
        is_part = bool(options.get("box"))
        fitting: Shrunk = await self._backend.to_thread(shrink, data, max_bytes, models.task, is_part=is_part)
        return fitting

    async def _limits(self) -> Models | None:
        """Return what the service says about the model, and so about its limits; None if it says nothing."""
        model = self._settings.get("model")
        if model not in self._models:
            try:
                self._models[model] = await self._call(_MODELS, Options())
            except DigitError:
                return None
        return self._models[model]

    async def _give_feedback(self, options: Options, *labelled: Any) -> Feedback:
        arguments = await self._backend.to_thread(_api.encode_feedback, *labelled)
        try:
            return await self._call(_FEEDBACK, options, arguments)
        except ServiceError as error:
            if error.status != 415 or "files" not in arguments:
                raise
            raise ServiceError(
                "this service is of an earlier release, which takes no picture with its label in a form: "
                "update the service, or pass an answer of a client without keep_picture",
                status=error.status,
                reason=error.reason,
                request_id=error.request_id,
            ) from error

    async def _call(
        self,
        route: _Route[_Answer],
        options: Options,
        arguments: Mapping[str, Any] = MappingProxyType({}),
        *,
        is_retried: bool = True,
    ) -> _Answer:
        """Send a request with httpx's `arguments` for its body; return what the route's parser returns."""
        request = self._request(route, options, arguments)
        timeout, deadline = self._timeout(options), Deadline(options.deadline)
        send = partial(self._send_once, route, request)
        return await (self._retrier.run(send, timeout, deadline) if is_retried else send(timeout))

    def _request(
        self, route: _Route[_Answer], options: Options, arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return httpx's arguments for a request."""
        headers = self._headers.copy()
        request_id = options.request_id or uuid4().hex
        headers.update({**arguments.get("headers", {}), "X-Request-ID": request_id})
        query = options.to_texts()
        if "model" in self._settings:
            query.append(("model", self._settings["model"]))
        target = {"method": route.method, "url": self.url + route.path, "params": query}
        return {**arguments, **target, "headers": headers}

    async def _send_once(
        self, route: _Route[_Answer], request: Mapping[str, Any], timeout: float, **parse_options: Any
    ) -> _Answer:
        """Send a request, which is to be answered within so many seconds; return what the parser returns."""
        request_id, http = request["headers"]["X-Request-ID"], self._http()
        with adding_request_id(request_id), self._translate_errors(timeout):
            response, content = await self._send(http, request, timeout)
            _logger.debug(
                "%s %s: status %d, %d bytes (request %s)",
                route.method,
                route.path,
                response.status_code,
                len(content),
                request_id,
            )
            return self._parse(partial(route.parse, **parse_options), response, content)

    def _parse(self, parse: Callable[..., _Answer], response: httpx.Response, content: bytes) -> _Answer:
        kept = _copy_response(response, content) if self._settings.get("keep_response") else None
        try:
            answer = _api.parse_response(parse, response.status_code, response.headers, content)
        except DigitError as error:
            error.response = kept
            raise
        return answer if kept is None else _with_response(answer, kept)

    @contextmanager
    def _translate_errors(self, timeout: float) -> Iterator[None]:
        """Convert httpx's errors to errors of this package."""
        try:
            yield
        except (TimeoutError, httpx.TimeoutException) as error:
            url = _without_password(self.url)
            raise DeadlineExceededError(f"{url} did not answer within {timeout:g} s") from error
        except httpx.LocalProtocolError as error:
            raise ValueError(f"a header of the request is invalid: {error}") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ConnectionFailedError(_describe_failure(_without_password(self.url), error)) from error


class Client(ImageClient, GatewayClient[httpx.Client]):
    """Client of a gateway, for any task.

        with Client() as client:
            prediction = client.predict("five.png")
            print(prediction.digit)

    `url` is the gateway's URL (default: DIGITS_URL, or http://127.0.0.1:8080). `model` is the name of a model
    (default: the gateway's default model). `api_key` is needed if the gateway requires one (default:
    DIGITS_API_KEY). `timeout` in seconds bounds each attempt of a request, from when it is sent (default:
    DIGITS_TIMEOUT, or 10). A picture that is larger than the service takes is scaled down to what it would
    look at (extra `[images]`), unless `resize` is "never"; boxes are those of the picture as given.
    `default_headers` are sent with each request. With `keep_response`, each result and error has its
    HTTP response; with `keep_picture`, each result has the image file as sent, for `feedback`. `http_client`
    is an httpx client with settings of its own, such as proxies or a private CA; the caller closes it.

    An image is a path, the bytes of an image file, an open binary file, a Pillow image or a NumPy array.
    Failures raise DigitError; a path that can't be read raises OSError, a URL without http:// or https://
    ValueError. A client can be pickled unless it was given an `http_client`. Threads may share a Client.

    Calls for an answer take the options of CallOptions.
    """

    def feedback(
        self,
        picture: "ImageSource | Prediction | Reading",
        label: str | int | None = None,
        *,
        box: Boxes = None,
        **options: Unpack[RequestOptions],
    ) -> Feedback:
        """Tell the service which `label` a picture has: it stores both for training.

        `label` is one of the model's labels, or "" if none of them fits. `box` is the labelled part of the
        picture, or several parts for the digits of a number; signs and white space of the number don't count.
        A number of another length labels the part around all boxes. Without a box, the label is about the
        whole picture, or the digit that the service finds.

        `picture` is an image as for `predict`, or an answer. An answer brings its picture and boxes if the
        client has `keep_picture`; otherwise its request ID names a picture of the service's sample. Without a
        label, the answer is confirmed. The options are `timeout` and `request_id`, as in CallOptions.

        Later feedback on the same picture replaces the earlier one. Raise ServiceError with `reason`
        "feedback_unknown" if the service has not stored the answer's picture, "feedback_mismatch" if the
        label does not suit the model, or "not_found" if the service takes no feedback; ValueError for
        an image without a label, or an answer without picture and request ID.
        """
        return run(self._give_feedback(self._options("feedback", options), picture, label, box))

    def models(self, **options: Unpack[RequestOptions]) -> Models:
        """Return the model's versions, their labels, its task card, and the names of all models.

        The options are `timeout` and `request_id`, as in CallOptions.
        """
        return run(self._call(_MODELS, self._options("models", options)))

    def _connect(self) -> httpx.Client:
        return httpx.Client(limits=_LIMITS)

    async def _close(self) -> None:
        if http := self._connection.end():
            http.close()

    async def _send(
        self, http: httpx.Client, request: Mapping[str, Any], timeout: float
    ) -> tuple[httpx.Response, bytes]:
        content, deadline = bytearray(), Deadline(timeout)
        with http.stream(**request, timeout=timeout) as response:
            for chunk in response.iter_bytes():
                content += chunk
                deadline.remaining()
        return response, bytes(content)


class AsyncClient(AsyncImageClient, GatewayClient[httpx.AsyncClient]):
    """asyncio client of a gateway, for any task.

        async with AsyncClient() as client:
            prediction = await client.predict("five.png")
            print(prediction.digit)

    The arguments are those of Client.
    """

    async def feedback(
        self,
        picture: "ImageSource | Prediction | Reading",
        label: str | int | None = None,
        *,
        box: Boxes = None,
        **options: Unpack[RequestOptions],
    ) -> Feedback:
        """Tell the service which `label` a picture has, as Client.feedback does."""
        return await self._give_feedback(self._options("feedback", options), picture, label, box)

    async def models(self, **options: Unpack[RequestOptions]) -> Models:
        """Return the model's versions, their labels, and its task card, as Client.models does."""
        return await self._call(_MODELS, self._options("models", options))

    def _connect(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(limits=_LIMITS)

    async def _close(self) -> None:
        if http := self._connection.end():
            await http.aclose()

    async def _send(
        self, http: httpx.AsyncClient, request: Mapping[str, Any], timeout: float
    ) -> tuple[httpx.Response, bytes]:
        async with asyncio.timeout(timeout), http.stream(**request, timeout=timeout) as response:
            return response, await response.aread()


def _with_boxes(options: Options, shrunk: Shrunk) -> Options:
    """Return the options with the boxes in pixels of the picture that is sent."""
    if shrunk.across == shrunk.down == 1 or not options.get("box"):
        return options
    scaled = copy(options)
    scaled["box"] = tuple(map(shrunk.to_sent, options["box"]))
    return scaled


def _check_url(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"the gateway's URL {url!r} is invalid: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"the gateway's URL must begin with http:// or https://, unlike {url!r}")
    return url.rstrip("/")


def _describe_failure(url: str, error: Exception) -> str:
    """Return a sentence about a connection that failed or broke."""
    reason = str(error)
    if "WRONG_VERSION_NUMBER" in reason or "RECORD_LAYER_FAILURE" in reason:
        return f"{url} does not speak TLS: begin the URL with http://"
    if "SSL" in reason:
        return f"no secure connection to {url}: {reason}; check https:// and the certificate"
    if any(sign in reason for sign in _UNKNOWN_HOST):
        return f"no host has the name in {url}: correct the URL"
    if isinstance(error, httpx.ConnectError):
        known = "" if reason in _NO_REASONS or "refused" in reason else f" ({reason})"
        return f"nothing answers at {url}{known}: start it with `digits up`, or give another URL"
    if isinstance(error, (httpx.ProxyError, httpx.UnsupportedProtocol)):
        return f"can't reach {url}: {reason}"
    return (
        f"the connection to {url} broke before the answer ({reason or type(error).__name__}): the service "
        "may have stopped, or take no body of this size"
    )


def _without_password(url: str) -> str:
    return str(httpx.URL(url).copy_with(userinfo=b""))


@cache
def _user_agent() -> str:
    return f"digits/{metadata.version('digits')} python/{platform.python_version()}"


def _copy_response(response: httpx.Response, content: bytes) -> httpx.Response:
    """Return the response with its content, decoded: httpx does not keep a streamed one."""
    encoded = ("content-encoding", "content-length", "transfer-encoding")
    headers = [(name, value) for name, value in response.headers.multi_items() if name.lower() not in encoded]
    return httpx.Response(response.status_code, headers=headers, content=content, request=response.request)


def _with_response(answer: Any, response: httpx.Response) -> Any:
    if isinstance(answer, list):
        return [_with_response(result, response) for result in answer]
    if isinstance(answer, DigitError):
        answer.response = response
        return answer
    return replace(answer, response=response)
