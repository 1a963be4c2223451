"""S3 server on the loopback interface, whose requests a test can interrupt."""

from collections.abc import Callable, Iterable
from threading import Thread
from typing import Any, Self

import fsspec
import httpx
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

_EXPIRED = "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"


class S3Server:
    """Moto's S3 server; it calls `before` with each request's method and path, before it reads the body."""

    def __init__(self) -> None:
        self.before: Callable[[str, str], None] = lambda _method, _path: None
        self.has_expired = False
        """True refuses every request, as with temporary credentials after their end."""
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._respond, threaded=True)
        self._thread = Thread(target=self._server.serve_forever, daemon=True)

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of clients."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def __enter__(self) -> Self:
        # A filesystem keeps the address that the environment had at first.
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.has_expired = False
        # Moto keeps its buckets in this process.
        httpx.post(f"{self.environment['AWS_ENDPOINT_URL']}/moto-api/reset").raise_for_status()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def filesystem(self) -> Any:
        """Return the filesystem of fsspec, in a process with the environment variables."""
        return fsspec.filesystem("s3", use_listings_cache=False)

    def _respond(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.before(environ["REQUEST_METHOD"], environ["PATH_INFO"])
        if self.has_expired:
            return Response(_EXPIRED, 400, content_type="application/xml")(environ, start_response)
        answer: Iterable[bytes] = self._app(environ, start_response)
        return answer
