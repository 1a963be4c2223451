"""TLS over a socket that one thread reads while others write, which an SSLSocket does not bear."""

import socket
import ssl
from threading import Lock

_HANDSHAKE_SECONDS = 10.0
_READ = 2**16


class TlsSocket:
    """A server's end of TLS on a connected socket. `sendall` is not for several threads at once.

    The handshake is made when constructed. Raises OSError where it fails.
    """

    def __init__(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        self._socket = connection
        self._coming, self._going = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._coming, self._going, server_side=True)
        self._lock = Lock()
        self.shutdown, self.close, self.fileno = connection.shutdown, connection.close, connection.fileno
        connection.settimeout(_HANDSHAKE_SECONDS)
        self._shake_hands()
        connection.settimeout(None)

    def recv(self, size: int) -> bytes:
        """As a socket's."""
        while True:
            with self._lock:
                try:
                    return self._tls.read(size)
                except ssl.SSLWantReadError:
                    pass
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    return b""
            self._fetch()

    def sendall(self, data: bytes) -> None:
        """As a socket's."""
        with self._lock:
            left = memoryview(data)
            while left:
                left = left[self._tls.write(left) :]
            sealed = self._going.read()
        self._socket.sendall(sealed)

    def _shake_hands(self) -> None:
        done = False
        while not done:
            try:
                self._tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            finally:  # whoever is refused is told why
                self._socket.sendall(self._going.read())
            if not done:
                self._fetch()

    def _fetch(self) -> None:
        data = self._socket.recv(_READ)
        with self._lock:
            if data:
                self._coming.write(data)
            else:
                self._coming.write_eof()
