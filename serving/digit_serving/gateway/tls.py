"""TLS: the certificate for callers, and gRPC channel credentials for the model server."""

import logging
import math
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import grpc

from digit_serving.gateway.settings import Settings

_NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which the ssl module does not name."""
_RELOAD_SECONDS = 1.0
"""Time between two looks at the files of the server's certificate."""

_log = logging.getLogger(__name__)


class ServerCertificate:
    """The gateway's certificate. Its files are read again once they change, for the handshakes from then on.

    The constructor raises OSError if the files are unusable. If they become unusable later, the previous
    certificate stays in use. `clock` returns seconds, like time.monotonic.
    """

    def __init__(
        self, certificate: Path, key: Path | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._certificate, self._key, self._clock = certificate, key, clock
        self._fingerprint = self._take_fingerprint()
        self._load()
        self._next_check = clock() + _RELOAD_SECONDS

    @property
    def context(self) -> ssl.SSLContext:
        """Context of the next handshake."""
        self._follow()
        return self._context

    @property
    def expiry(self) -> float:
        """Unix time at which the certificate ends, infinity if it is not a server's."""
        self._follow()
        return self._expiry

    def _follow(self) -> None:
        if self._clock() < self._next_check:
            return
        self._next_check = self._clock() + _RELOAD_SECONDS
        try:
            fingerprint = self._take_fingerprint()
            if fingerprint == self._fingerprint:
                return
            self._fingerprint = fingerprint
            self._load()
        except OSError as error:
            _log.error("the previous certificate stays in use: %s", error)
        else:
            _log.info("handshakes use the changed certificate %s", self._certificate)

    def _take_fingerprint(self) -> list[tuple[int, int, int]]:
        states = [file.stat() for file in (self._certificate, self._key or self._certificate)]
        return [(state.st_ino, state.st_mtime_ns, state.st_size) for state in states]

    def _load(self) -> None:
        """Read the files, and log an error if callers refuse the certificate."""
        # A new context: a pair of files that does not fit would leave a used one without its key.
        context = server_context(self._certificate, self._key)
        try:
            self._expiry = expiry(self._certificate, self._key)
        except ssl.SSLCertVerificationError as error:
            _log.error("Callers refuse %s: %s.", self._certificate, error.verify_message)
            self._expiry = math.inf
        self._context = context
        if self._expiry < time.time():
            date = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self._expiry))
            _log.error("Callers refuse %s: it expired on %s.", self._certificate, date)


server_certificate = cache(ServerCertificate)
"""Returns the process's only object of these files: probes say what handshakes show."""


def server_context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """Return a context for TLS 1.3 with this certificate. Raise OSError if the files are unusable."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    _load_certificate(context, certificate, key)
    return context


def expiry(certificate: Path, key: Path | None) -> float:
    """Return the Unix time at which a server certificate ends.

    Raise OSError if the files are unusable, and SSLCertVerificationError if it is not a server's certificate.
    The ssl module reads a certificate's fields only from a peer: this makes a handshake in memory.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    # Trust the certificate itself, even without its authority and after its end.
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    client.load_verify_locations(certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    caller = client.wrap_bio(to_client, to_server)
    server = server_context(certificate, key).wrap_bio(to_server, to_client, server_side=True)
    for end in (caller, server, caller):
        with suppress(ssl.SSLWantReadError):
            end.do_handshake()
    fields = caller.getpeercert()
    assert fields
    return ssl.cert_time_to_seconds(str(fields["notAfter"]))


def channel_credentials(settings: Settings) -> grpc.ChannelCredentials | None:
    """Return credentials for the model server's channel, or None if DIGITS_MODEL_SERVER_CA is not set.

    Raise OSError if a file is unusable; gRPC itself would fail only at the first call.
    """
    authority, certificate, key = (
        settings.model_server_ca,
        settings.model_server_certificate,
        settings.model_server_key,
    )
    if not authority:
        return None
    _require_readable(authority)
    try:
        context = ssl.create_default_context(cafile=authority)
    except ssl.SSLError as error:
        raise OSError(f"{authority} contains no certificate in PEM: {error}") from error
    if not certificate or not key:
        return grpc.ssl_channel_credentials(authority.read_bytes())
    _load_certificate(context, certificate, key)
    return grpc.ssl_channel_credentials(authority.read_bytes(), key.read_bytes(), certificate.read_bytes())


def _load_certificate(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    _require_readable(certificate, key or certificate)
    try:
        # Without a password argument OpenSSL would ask for one on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        raise OSError(
            f"{certificate} and {key} are not a certificate and its private key in PEM: {error}"
        ) from error


def _require_readable(*files: Path) -> None:
    """Raise an OSError that names the file; the errors of the ssl module don't."""
    for file in files:
        file.open("rb").close()
