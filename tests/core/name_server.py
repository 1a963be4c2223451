"""DNS server on loopback that knows one address, or none, for every name."""

import socket
import struct
from threading import Thread
from typing import Self

_A, _IN = 1, 1
_OK, _NO_NAME = 0x8180, 0x8183


class NameServer:
    """Answers with the IPv4 address `address`, or while it is empty that the name does not exist."""

    def __init__(self) -> None:
        self.address = ""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = Thread(target=self._serve)

    def _serve(self) -> None:
        while True:
            query, caller = self._socket.recvfrom(512)
            if not query:
                return
            end = query.index(b"\0", 12) + 5
            (kind,) = struct.unpack(">H", query[end - 4 : end - 2])
            address = self.address
            has_answer = bool(address) and kind == _A
            head = struct.pack(">HHHHH", _OK if address else _NO_NAME, 1, has_answer, 0, 0)
            answer = b""
            if has_answer:
                # A pointer to the name of the question, without time to live.
                answer = b"\xc0\x0c" + struct.pack(">HHIH", _A, _IN, 0, 4) + socket.inet_aton(address)
            self._socket.sendto(query[:2] + head + query[12:end] + answer, caller)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()
