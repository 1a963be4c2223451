"""The gateway's end of encrypted connections, from its callers and to the model server."""

import ssl
from pathlib import Path

from digit_serving.gateway.settings import Settings


def context(settings: Settings) -> ssl.SSLContext | None:
    """What the model server's certificate is checked with, and what this gateway shows it, if anything.

    Raises OSError where the files are of no use.
    """
    if not settings.model_server_ca:
        return None
    try:
        tls = ssl.create_default_context(cafile=settings.model_server_ca)
    except ssl.SSLError as error:
        raise OSError(f"{settings.model_server_ca} holds no certificate, in PEM: {error}") from error
    tls.set_alpn_protocols(["h2"])
    if settings.model_server_certificate:
        load(tls, settings.model_server_certificate, settings.model_server_key)
    return tls


def server(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """What callers are shown. Raises OSError where the files are of no use."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    load(tls, certificate, key)
    return tls


def load(tls: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    """Have it show that certificate. Raises OSError where the two files are of no use."""
    try:
        # With no password at all OpenSSL would ask for one at the terminal.
        tls.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        raise OSError(f"{certificate} and {key} are no certificate and its key, in PEM: {error}") from error
