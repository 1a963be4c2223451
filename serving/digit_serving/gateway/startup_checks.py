"""Startup checks: settings whose validation needs the system, such as free ports and readable key files.

Settings has no validators for them, since the documentation and the tests create Settings without a server.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from digit_serving import sockets
from digit_serving.errors import DigitServingError, SettingError
from digit_serving.gateway import tls
from digit_serving.gateway.auth import KeyFile
from digit_serving.gateway.settings import ModelsFileError, Settings

_MODEL_SERVER_TLS = "DIGITS_MODEL_SERVER_CA, DIGITS_MODEL_SERVER_CERTIFICATE, DIGITS_MODEL_SERVER_KEY"


def check(settings: Settings) -> None:
    """Try to use each setting as the workers will. Raise SettingError."""
    with _wrap_errors("DIGITS_HOST, DIGITS_PORT", OSError):
        sockets.listen(sockets.resolve(settings.host), settings.port).close()
    with _wrap_errors("DIGITS_API_KEYS", OSError, DigitServingError):
        if settings.api_keys:
            KeyFile(settings.api_keys).read()
    with _wrap_errors("DIGITS_MODELS_FILE", ModelsFileError):
        _ = settings.by_model
    with _wrap_errors("DIGITS_TLS_CERTIFICATE, DIGITS_TLS_KEY", OSError):
        if settings.tls_certificate:
            tls.server_context(settings.tls_certificate, settings.tls_key)
    with _wrap_errors(_MODEL_SERVER_TLS, OSError):
        tls.channel_credentials(settings)
    if settings.feedback:
        _check_store(settings.feedback)
    if settings.rate_limit:
        # Lazy, because most gateways set no limit.
        from limits.errors import ConfigurationError

        from digit_serving.gateway.rate_limit import RateLimiter

        with _wrap_errors("DIGITS_RATE_LIMIT_STORE", ConfigurationError):
            RateLimiter(settings.rate_limit, settings.rate_limit_store)


def _check_store(url: str) -> None:
    """Check the form of the URL only: the gateway answers pictures also while a database is down."""
    try:
        from digit_client.artifact.feedback_table import StoreError, parse_url
    except ImportError as error:
        raise SettingError(
            "DIGITS_FEEDBACK: needs the extra feedback; "
            "install it in a clone of digit-serving: pip install '.[feedback]'"
        ) from error
    with _wrap_errors("DIGITS_FEEDBACK", StoreError):
        parse_url(url)


@contextmanager
def _wrap_errors(names: str, *errors: type[Exception]) -> Iterator[None]:
    try:
        yield
    except errors as error:
        raise SettingError(f"{names}: {error}") from error
