"""TLS: the server context for callers, and gRPC channel credentials for the model server."""

import math
import ssl
from contextlib import suppress
from pathlib import Path

import grpc

from digit_serving.gateway.settings import Settings

_NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which the ssl module does not name."""


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


def server_expiry(settings: Settings) -> float:
    """Return the Unix time at which the gateway's certificate ends, infinity without a certificate.

    Also return infinity if it is not a server's certificate; the supervisor logs that at the start.
    """
    with suppress(ssl.SSLCertVerificationError):
        if settings.tls_certificate:
            return expiry(settings.tls_certificate, settings.tls_key)
    return math.inf


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
