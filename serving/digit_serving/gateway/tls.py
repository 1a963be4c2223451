"""The gateway's end of encrypted connections, from its callers and to the model server."""

import ssl
from pathlib import Path

import grpc

from digit_serving.gateway.settings import Settings


def credentials(settings: Settings) -> grpc.ChannelCredentials | None:
    """gRPC channel credentials: the authority of the model server's certificate, and the gateway's own pair.

    None where the settings want no TLS. Raises OSError where the files are of no use, which gRPC would tell
    only with the first call.
    """
    authority, certificate, key = (
        settings.model_server_ca,
        settings.model_server_certificate,
        settings.model_server_key,
    )
    if not authority:
        return None
    try:
        context = ssl.create_default_context(cafile=authority)
    except ssl.SSLError as error:
        raise OSError(f"{authority} holds no certificate, in PEM: {error}") from error
    if not certificate or not key:
        return grpc.ssl_channel_credentials(authority.read_bytes())
    load(context, certificate, key)
    return grpc.ssl_channel_credentials(authority.read_bytes(), key.read_bytes(), certificate.read_bytes())


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
