"""The gateway's end of encrypted connections to the model server."""

import ssl

from digit_serving.gateway.settings import Settings


def context(settings: Settings) -> ssl.SSLContext | None:
    """What the model server's certificate is checked with, and what this gateway shows it, if anything.

    Raises OSError where the files are of no use.
    """
    if not settings.model_server_ca:
        return None
    tls = ssl.create_default_context(cafile=settings.model_server_ca)
    tls.set_alpn_protocols(["h2"])
    if settings.model_server_certificate:
        tls.load_cert_chain(settings.model_server_certificate, settings.model_server_key)
    return tls
