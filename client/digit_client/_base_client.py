"""Base of the HTTP clients: settings, requests for images, parsing of responses, and error translation."""

import logging
import os
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib import metadata
from types import MappingProxyType
from typing import Any, Generic, Self, TypeVar
from uuid import uuid4

import httpx

from digit_client import _api
from digit_client._concurrency import check_loop
from digit_client._options import DEFAULT_URL, Feedback, Models, Options, check_timeout
from digit_client._retries import Retrier, RetryPolicy, default_timeout
from digit_core.errors import ClientClosedError, ConnectionFailedError, DeadlineExceededError, DigitError
from digit_core.results import Prediction, Reading

_logger = logging.getLogger("digit_client")

Answer = TypeVar("Answer")
HttpClient = TypeVar("HttpClient", httpx.Client, httpx.AsyncClient)


@dataclass(frozen=True, slots=True)
class _Settings:
    """Settings of a client. They are all that a copy in another process needs."""

    url: str = field(repr=False)
    model: str | None
    api_key: str | None = field(repr=False)
    timeout: float
    retries: RetryPolicy
    default_headers: Mapping[str, str] = field(repr=False)
    keep_response: bool


@dataclass(frozen=True, slots=True)
class Route(Generic[Answer]):
    """Route of the gateway, and the parser of its responses' documents.

    `max_files` is the largest number of files in a request. The gateway has 5 seconds for a request by
    default, also beside others. A photograph takes 30 ms of a core, the digits on a page 120 ms.
    """

    method: str
    path: str
    parse: Callable[..., Answer]
    max_files: int = 0


PREDICT: Route[list[Prediction | DigitError]] = Route("POST", "/v1/predict", _api.parse_predictions, 16)
READ: Route[list[Reading | DigitError]] = Route("POST", "/v1/read", _api.parse_readings, 8)
FEEDBACK: Route[Feedback] = Route("POST", "/v1/feedback", _api.parse_feedback)
READY: Route[None] = Route("GET", "/readyz", lambda _: None)
MODELS: Route[Models] = Route("GET", "/v1/models", _api.parse_models)


@dataclass(frozen=True, slots=True)
class Request(Generic[Answer]):
    """HTTP request to a route, the parser of its response's document, and httpx's keyword arguments."""

    route: Route[Answer]
    parse: Callable[[dict[str, Any]], Answer]
    timeout: float
    request_id: str
    arguments: dict[str, Any]


class BaseClient(ABC, Generic[HttpClient]):
    """Common base of the blocking and the asyncio client: settings, and requests without their sending."""

    def __init__(
        self,
        url: str | None = None,
        *,
        model: str | None = None,
        api_key: str | None = None,
        timeout: float | None = None,
        retries: RetryPolicy | None = None,
        default_headers: Mapping[str, str] | None = None,
        keep_response: bool = False,
        http_client: HttpClient | None = None,
    ) -> None:
        settings = _Settings(
            _check_url(url or os.environ.get("DIGITS_URL") or DEFAULT_URL),
            model,
            api_key or os.environ.get("DIGITS_API_KEY"),
            default_timeout() if timeout is None else timeout,
            retries or RetryPolicy(),
            dict(default_headers or {}),
            keep_response,
        )
        self._start(settings, http_client)

    @property
    def url(self) -> str:
        """The gateway's URL."""
        return self._settings.url

    @property
    def timeout(self) -> float:
        """Seconds for a request with its retries."""
        return self._settings.timeout

    def with_options(
        self,
        *,
        model: str | None = None,
        api_key: str | None = None,
        timeout: float | None = None,
        retries: RetryPolicy | None = None,
        default_headers: Mapping[str, str] | None = None,
        keep_response: bool | None = None,
    ) -> Self:
        """Return a client with other settings that shares the connections and the retry budget of this one.

        `default_headers` replace those of this client. Closing either client closes the connections of both.
        """
        changes: dict[str, Any] = {
            "model": model,
            "api_key": api_key,
            "timeout": timeout,
            "retries": retries,
            "default_headers": default_headers,
            "keep_response": keep_response,
        }
        client = object.__new__(type(self))
        client.__dict__.update(self.__dict__)
        client._configure(
            replace(self._settings, **{name: value for name, value in changes.items() if value is not None})
        )
        if retries is not None:
            client._retrier = self._retrier.with_policy(retries)
        return client

    def __repr__(self) -> str:
        settings = self._settings
        return (
            f"{type(self).__name__}({_without_password(settings.url)!r}, model={settings.model!r}, "
            f"timeout={settings.timeout:g})"
        )

    def __getstate__(self) -> _Settings:
        if not self._owns_http:
            raise TypeError("a client with its own http_client can't be pickled; create it in each process")
        return self._settings

    def __setstate__(self, settings: _Settings) -> None:
        self._start(settings, None)

    def _start(self, settings: _Settings, http_client: HttpClient | None) -> None:
        self._configure(settings)
        self._retrier = Retrier(settings.retries)
        self._owns_http = http_client is None
        self._http: HttpClient = http_client or self._connect()
        self._process_id = os.getpid()
        self._loop: object = None

    def _configure(self, settings: _Settings) -> None:
        check_timeout(settings.timeout)
        self._settings: _Settings = settings
        self._headers = httpx.Headers({"User-Agent": _user_agent()} | _api.auth_headers(settings.api_key))
        self._headers.update(settings.default_headers)

    def _connection(self, loop: object) -> HttpClient:
        """Return the HTTP client; after a fork a new one, since two processes would mix up their answers.

        `loop` is the running event loop of an asyncio client. Raise ClientClosedError.
        """
        if self._process_id != os.getpid():
            if not self._owns_http:
                raise RuntimeError("a client with its own http_client can't be used after a fork")
            self._http, self._process_id, self._loop = self._connect(), os.getpid(), None
        if self._http.is_closed:
            raise ClientClosedError("the client is closed; create another one")
        if self._owns_http:
            self._loop = self._loop or loop
            check_loop(self._loop, loop)
        return self._http

    @abstractmethod
    def _connect(self) -> HttpClient:
        """Return a new HTTP client."""

    def _request(
        self,
        route: Route[Answer],
        options: Options,
        arguments: Mapping[str, Any] = MappingProxyType({}),
        **parse_options: Any,
    ) -> Request[Answer]:
        """Return a request with httpx's `arguments` for its body; `parse_options` are those of the parser."""
        settings = self._settings
        request_id = options.request_id or uuid4().hex
        headers = self._headers.copy()
        headers.update({**arguments.get("headers", {}), "X-Request-ID": request_id})
        query = _api.query(options)
        # Feedback names an answer, which has a model.
        if settings.model is not None and route is not FEEDBACK:
            query |= {"model": settings.model}
        return Request(
            route,
            partial(route.parse, **parse_options),
            self.timeout if options.timeout is None else options.timeout,
            request_id,
            {**arguments, "headers": headers, "params": query},
        )

    def _parse(self, request: Request[Answer], response: httpx.Response, content: bytes) -> Answer:
        _logger.debug(
            "%s %s: status %d, %d bytes (request %s)",
            request.route.method,
            request.route.path,
            response.status_code,
            len(content),
            request.request_id,
        )
        kept = _copy_response(response, content) if self._settings.keep_response else None
        try:
            answer = _api.parse_response(request.parse, response.status_code, response.headers, content)
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
            raise DeadlineExceededError(f"no answer from {url} within {timeout:g} s") from error
        except httpx.LocalProtocolError as error:
            raise ValueError(f"a header of the request is invalid: {error}") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            url = _without_password(self.url)
            raise ConnectionFailedError(f"can't reach {url}: {error}") from error


def _check_url(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"the gateway's URL {url!r} is invalid: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"the gateway's URL begins with http:// or https://, unlike {url!r}")
    return url.rstrip("/")


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
