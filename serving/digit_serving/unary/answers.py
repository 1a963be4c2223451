"""What a server answers to a client's call: a message, or an error."""

from dataclasses import dataclass, field
from functools import lru_cache

import grpc
from hpack import Decoder, HPACKError

from digit_serving.unary import frames
from digit_serving.unary.frames import ProtocolError

_CODES = {code.value[0]: code for code in grpc.StatusCode}
# What gRPC takes an HTTP/2 error or an HTTP status without a gRPC status for; all others: INTERNAL, UNKNOWN.
_RESETS = {
    7: grpc.StatusCode.UNAVAILABLE,
    8: grpc.StatusCode.CANCELLED,
    11: grpc.StatusCode.RESOURCE_EXHAUSTED,
    12: grpc.StatusCode.PERMISSION_DENIED,
}
_HTTP = {
    b"401": grpc.StatusCode.UNAUTHENTICATED,
    b"403": grpc.StatusCode.PERMISSION_DENIED,
    b"404": grpc.StatusCode.UNIMPLEMENTED,
} | dict.fromkeys((b"429", b"502", b"503", b"504"), grpc.StatusCode.UNAVAILABLE)


class CallError(grpc.RpcError):
    """A call that failed, as grpcio's errors tell it."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{code.name}: {details}")
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        """What kind of failure it is."""
        return self._code

    def details(self) -> str:
        """What the server, or this end, says about it."""
        return self._details


@dataclass(slots=True)
class Answer:
    """What came on a call's stream until now; `window` is how much the server takes of its message."""

    stream: int
    window: int
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: list[bytes] = field(default_factory=list)
    block: bytes = b""
    last: bool = False
    ended: bool = False

    def take(self, kind: int, flags: int, payload: bytes) -> None:
        """Raises CallError where the server ends it otherwise than by a status, ProtocolError."""
        if kind == frames.DATA:
            self.body.append(payload)
            self.ended = bool(flags & frames.END_STREAM)
        elif kind in (frames.HEADERS, frames.CONTINUATION):
            self.last |= kind == frames.HEADERS and bool(flags & frames.END_STREAM)
            self.block += payload
            if flags & frames.END_HEADERS:
                self.headers |= _decode(self.block)
                self.block, self.ended = b"", self.last
        elif kind == frames.WINDOW_UPDATE:
            self.window += frames.number(payload)
        elif kind == frames.RST_STREAM:
            error = frames.number(payload)
            raise CallError(
                _RESETS.get(error, grpc.StatusCode.INTERNAL), f"the call was reset with HTTP/2 error {error}"
            )

    def message(self) -> bytes:
        """The answer that is whole. Raises CallError, ProtocolError."""
        status = self.headers.get(b"grpc-status")
        if status == b"0":
            return frames.read_message(b"".join(self.body))
        if status is None:
            http = self.headers.get(b":status", b"no status")
            raise CallError(_HTTP.get(http, grpc.StatusCode.UNKNOWN), f"no gRPC status; HTTP {http.decode()}")
        code = _CODES.get(int(status), grpc.StatusCode.UNKNOWN) if status.isdigit() else None
        details = frames.unquoted(self.headers.get(b"grpc-message", b""))
        raise CallError(code or grpc.StatusCode.UNKNOWN, details)


@lru_cache(maxsize=256)
def _decode(block: bytes) -> dict[bytes, bytes]:
    decoder = Decoder()
    decoder.max_allowed_table_size = decoder.header_table_size = 0
    try:
        return {bytes(name): bytes(value) for name, value in decoder.decode(block, raw=True)}
    except HPACKError as error:
        raise ProtocolError(f"headers that can't be read: {error}") from error
