"""HTTP/2's frames (RFC 9113) and what gRPC puts into them. Pure: bytes in, bytes out."""

import struct
import urllib.parse
from collections.abc import Iterable
from typing import NamedTuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends first."""

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
PUSH_PROMISE = 5
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITY = 0x4, 0x8, 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 2, 3, 4, 5
MAX_HEADER_LIST_SIZE = 6
DEFAULT_WINDOW = 65_535
DEFAULT_FRAME_SIZE = 16_384
LARGEST_WINDOW = 2**31 - 1

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
FRAME_SIZE_ERROR, REFUSED_STREAM, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 6, 7, 9, 11

Headers = Iterable[tuple[bytes, bytes]]

_HEAD = struct.Struct(">HBBBL")
_SETTING = struct.Struct(">HL")
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class ProtocolError(Exception):
    """The other end does not speak HTTP/2 or gRPC; `code` is what HTTP/2 calls it."""

    def __init__(self, message: str, code: int = PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.code = code


class Frame(NamedTuple):
    """One frame, its payload without padding and priority."""

    kind: int
    flags: int
    stream: int
    payload: bytes


class Splitter:
    """Cuts what comes from a connection into frames.

    `data` counts the bytes that flow control counts: those of DATA frames, padding too.
    """

    def __init__(self) -> None:
        self._rest = b""
        self.data = 0

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are whole with this data. Raises ProtocolError."""
        frames, data, at = [], self._rest + data, 0
        while len(data) - at >= 9:
            high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
            end = at + 9 + (high << 8 | low)
            if end - at - 9 > DEFAULT_FRAME_SIZE:
                raise ProtocolError("a frame is larger than was agreed on", FRAME_SIZE_ERROR)
            if end > len(data):
                break
            payload, at = data[at + 9 : end], end
            if kind == DATA:
                self.data += len(payload)
            if flags & (PADDED | PRIORITY) and kind in (DATA, HEADERS):
                payload = _bare(kind, flags, payload)
            frames.append(Frame(kind, flags, stream & LARGEST_WINDOW, payload))
        self._rest = data[at:]
        return frames


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame as it is sent."""
    return _HEAD.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


def settings(**values: int) -> bytes:
    """A SETTINGS frame, of the settings by the names that they have here, in small letters."""
    pairs = [_SETTING.pack(globals()[name.upper()], value) for name, value in values.items()]
    return frame(SETTINGS, 0, 0, b"".join(pairs))


def read_settings(payload: bytes) -> dict[int, int]:
    """The values of a SETTINGS frame by their numbers. Raises ProtocolError."""
    if len(payload) % _SETTING.size:
        raise ProtocolError("a SETTINGS frame has half a setting", FRAME_SIZE_ERROR)
    return dict(_SETTING.iter_unpack(payload))


def window_update(stream: int, size: int) -> bytes:
    """Leave to send `size` more bytes, on the whole connection where `stream` is 0."""
    return frame(WINDOW_UPDATE, 0, stream, size.to_bytes(4, "big"))


def reset(stream: int, code: int) -> bytes:
    """The end of one stream."""
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def goaway(last: int, code: int = NO_ERROR, reason: str = "") -> bytes:
    """The end of a connection, on which no stream after the `last` was looked at."""
    return frame(GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big") + reason.encode())


def number(payload: bytes) -> int:
    """The number that a WINDOW_UPDATE, an RST_STREAM or a GOAWAY begins with. Raises ProtocolError."""
    if len(payload) < 4:
        raise ProtocolError("a frame is too short", FRAME_SIZE_ERROR)
    return int.from_bytes(payload[:4], "big") & LARGEST_WINDOW


def literals(headers: Headers) -> bytes:
    """A header block (RFC 7541) that needs and leaves no table, so that equal headers are equal bytes."""
    return b"".join(b"\x00" + _string(name) + _string(value) for name, value in headers)


def read_literals(block: bytes) -> dict[bytes, bytes] | None:
    """The headers of such a block, None for any other. A tenth of what a whole decoder takes."""
    headers, at, end = {}, 0, len(block)
    try:
        while at < end:
            name, value = at + 2, at + 3 + block[at + 1]
            length = block[value - 1]
            if block[at] or value - name > 0x7F or length > 0x7F:
                return None
            if length == 0x7F:
                length, value = _long(block, value)
            at = value + length
            headers[block[name : name + block[name - 1]]] = block[value:at]
    except IndexError:
        return None
    return headers if at == end else None


def header_frames(stream: int, block: bytes, *, end_stream: bool = False) -> bytes:
    """A header block as HEADERS, and CONTINUATION where it is too long for one frame."""
    first, *rest = [block[at : at + DEFAULT_FRAME_SIZE] for at in range(0, len(block), DEFAULT_FRAME_SIZE)]
    ends = END_STREAM if end_stream else 0
    sent = frame(HEADERS, ends | (0 if rest else END_HEADERS), stream, first)
    for left, part in zip(range(len(rest) - 1, -1, -1), rest, strict=True):
        sent += frame(CONTINUATION, 0 if left else END_HEADERS, stream, part)
    return sent


def message(payload: bytes) -> bytes:
    """A gRPC message, uncompressed."""
    return b"\x00" + len(payload).to_bytes(4, "big") + payload


def read_message(body: bytes) -> bytes:
    """The one message of a unary call's body. Raises ProtocolError."""
    if len(body) < 5 or len(body) - 5 != int.from_bytes(body[1:5], "big"):
        raise ProtocolError("the body is not one whole message")
    if body[0]:
        raise ProtocolError("the message is compressed, which is not supported")
    return body[5:]


def timeout(seconds: float) -> bytes:
    """Seconds as gRPC writes them: a whole number of at most eight digits, and a unit."""
    micros = max(0, round(seconds * 1e6))
    return b"%du" % micros if micros < 10**8 else b"%dS" % min(round(seconds), 10**8 - 1)


def read_timeout(text: str) -> float:
    """Seconds. Raises ProtocolError."""
    digits, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not (digits.isascii() and digits.isdigit() and len(digits) <= 8):
        raise ProtocolError(f"{text!r} is no time-out")
    return int(digits) * _UNITS[unit]


def quoted(text: str) -> bytes:
    """A grpc-message: UTF-8, with % for what is not printable ASCII."""
    return urllib.parse.quote(text, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~").encode()


def unquoted(value: bytes) -> str:
    """What `quoted` was given."""
    return urllib.parse.unquote(value.decode("latin-1"))


def _string(value: bytes) -> bytes:
    length, size = len(value), b""
    if length < 0x7F:
        return bytes((length,)) + value
    length -= 0x7F
    while length > 0x7F:
        size += bytes((length & 0x7F | 0x80,))
        length >>= 7
    return b"\x7f" + size + bytes((length,)) + value


def _long(block: bytes, at: int) -> tuple[int, int]:
    """A length of 127 or more whose bytes after the first begin there, and where they end."""
    length, shift, more = 0x7F, 0, True
    while more and shift <= 28:
        length += (block[at] & 0x7F) << shift
        more, at, shift = block[at] > 0x7F, at + 1, shift + 7
    return length, at


def _bare(kind: int, flags: int, payload: bytes) -> bytes:
    start, end = 0, len(payload)
    if flags & PADDED:
        if not payload or payload[0] >= end:
            raise ProtocolError("a frame is all padding")
        start, end = 1, end - payload[0]
    if kind == HEADERS and flags & PRIORITY:
        start += 5
    return payload[start:end]
