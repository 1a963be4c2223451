"""Readiness probe: `python -m digit_serving.gateway.probe` asks the gateway that has the same settings.

The module reads its three settings itself: importing Settings would take ten times as long as the request.
"""

import os
import ssl
import sys
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPSConnection

_TIMEOUT_SECONDS = 5.0


def main() -> str | None:
    """Return None if /readyz succeeds, or the reason why it failed."""
    host, port = os.environ.get("DIGITS_HOST", "127.0.0.1"), os.environ.get("DIGITS_PORT", "8080")
    # The gateway listens on IPv4 too, while a container often has no IPv6 address.
    host = "127.0.0.1" if host == "::" else host
    with closing(_connection(host, int(port))) as connection:
        try:
            connection.request("GET", "/readyz")
            response = connection.getresponse()
            return None if response.status == 200 else response.read().decode()
        except (OSError, HTTPException) as error:
            return str(error)


def _connection(host: str, port: int) -> HTTPConnection:
    if not os.environ.get("DIGITS_TLS_CERTIFICATE"):
        return HTTPConnection(host, port, timeout=_TIMEOUT_SECONDS)
    # The certificate names the service, not the loopback address.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return HTTPSConnection(host, port, timeout=_TIMEOUT_SECONDS, context=context)


if __name__ == "__main__":
    sys.exit(main())
