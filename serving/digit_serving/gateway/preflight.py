"""Settings that only trying shows to be wrong: ports that are taken, files that hold something else."""

from collections.abc import Iterator
from contextlib import contextmanager

from digit_serving import sockets
from digit_serving.gateway import tls
from digit_serving.gateway.auth import KeyFile, KeyFileError
from digit_serving.gateway.settings import Settings


class UnusableSettingError(Exception):
    """Says which setting can't be used, and why."""


def check(settings: Settings) -> None:
    """Try what the server and its processes will need. Raises UnusableSettingError."""
    with _trying("HOST, DIGITS_PORT", (OSError,)):
        sockets.tcp(sockets.resolve(settings.host), settings.port).close()
    with _trying("API_KEYS", (OSError, KeyFileError)):
        if settings.api_keys:
            KeyFile(settings.api_keys).read()
    with _trying("TLS_CERTIFICATE, DIGITS_TLS_KEY", (OSError,)):
        if settings.tls_certificate:
            tls.server(settings.tls_certificate, settings.tls_key)
    with _trying("MODEL_SERVER_CA, DIGITS_MODEL_SERVER_CERTIFICATE, DIGITS_MODEL_SERVER_KEY", (OSError,)):
        tls.credentials(settings)
    if settings.rate_limit:
        # It takes a while to import.
        from limits.errors import ConfigurationError

        from digit_serving.gateway.rate_limit import RateLimiter

        with _trying("RATE_LIMIT_STORE", (ConfigurationError,)):
            RateLimiter(settings.rate_limit, settings.rate_limit_store)


@contextmanager
def _trying(name: str, errors: tuple[type[Exception], ...]) -> Iterator[None]:
    try:
        yield
    except errors as error:
        raise UnusableSettingError(f"DIGITS_{name}: {error}") from error
