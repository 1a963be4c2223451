"""What gRPC makes of HTTP/2's requests: a handler's answer, or a status."""

import logging
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from grpc import StatusCode

from digit_serving.unary import frames
from digit_serving.unary.frames import LARGEST_WINDOW, ProtocolError
from digit_serving.unary.headers import Fields

log = logging.getLogger(__name__)

Handler = Callable[[bytes, float], bytes]
"""A message's answer, until a time of the monotonic clock. May raise StatusError."""

# Handing a call to another thread takes as long as the rest of a call that is quicker than that.
_QUICK = 0.001

_TYPE = (b"content-type", b"application/grpc")
_HEAD = frames.literals([(b":status", b"200"), _TYPE])
_DONE = frames.literals([(b"grpc-status", b"0")])
_NOT_GRPC = frames.literals([(b":status", b"415")])
_ACCEPTED = (b"grpc-accept-encoding", b"identity, deflate, gzip")
_COMPRESSIONS = (b"gzip", b"deflate")


class StatusError(Exception):
    """What a caller is told in place of an answer."""

    def __init__(self, code: StatusCode, message: str) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code, self.message = code, message


class Answer(NamedTuple):
    """Two header blocks and what comes between them. Where there is no head, nothing does."""

    head: bytes
    body: bytes
    trailers: bytes


class Calls:
    """Calls of methods by their paths, `/package.Service/Method`. Threads may share it."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = {path.encode(): handler for path, handler in handlers.items()}
        self._quick = dict.fromkeys(self._handlers, False)

    def is_quick(self, headers: Fields) -> bool:
        """Whether the last call of the method was."""
        return self._quick.get(headers.get(b":path", b""), True)

    def answer(self, headers: Fields, body: Sequence[bytes], begun: float) -> Answer:
        """Raises nothing: whatever goes wrong is told to the caller."""
        path, started = headers.get(b":path", b""), time.monotonic()
        if not headers.get(b"content-type", b"").startswith(b"application/grpc"):
            return Answer(b"", b"", _NOT_GRPC)
        try:
            deadline, handler = _deadline(headers, begun), self._handlers.get(path)
            if handler is None:
                raise StatusError(StatusCode.UNIMPLEMENTED, "Method not found!")
            if started > deadline:
                raise StatusError(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
            answer = Answer(_HEAD, frames.message(handler(_message(headers, body), deadline)), _DONE)
            self._quick[path] = time.monotonic() - started < _QUICK
            return answer
        except StatusError as error:
            return _failure(error.code, error.message)
        except ProtocolError as error:
            return _failure(StatusCode.INTERNAL, str(error))
        except Exception as error:
            log.exception("Exception in %s", path.decode(errors="replace"))
            return _failure(StatusCode.UNKNOWN, f"Exception calling application: {error}")


def _deadline(headers: Fields, begun: float) -> float:
    timeout = headers.get(b"grpc-timeout")
    return begun + frames.read_timeout(timeout.decode("latin-1")) if timeout else float("inf")


def _message(headers: Fields, body: Sequence[bytes]) -> bytes:
    whole = b"".join(body)
    if whole[:1] != b"\1":
        return frames.read_message(whole)
    encoding = headers.get(b"grpc-encoding", b"identity")
    if encoding not in _COMPRESSIONS:
        problem = f"Compression {encoding.decode(errors='replace')!r} is not supported"
        raise StatusError(StatusCode.UNIMPLEMENTED, problem)
    try:
        # 32 more than the largest window: a header of zlib's or of gzip's.
        inflater = zlib.decompressobj(zlib.MAX_WBITS + 32)
        message = inflater.decompress(frames.read_message(b"\0" + whole[1:]), LARGEST_WINDOW)
    except zlib.error as error:
        raise ProtocolError(f"the message can't be decompressed: {error}") from None
    if not inflater.eof:
        raise ProtocolError("the message decompressed is cut off or too large")
    return message


def _failure(code: StatusCode, message: str) -> Answer:
    status = [(b"grpc-status", b"%d" % code.value[0]), (b"grpc-message", frames.quoted(message))]
    head = [(b":status", b"200"), _TYPE, *([_ACCEPTED] if code is StatusCode.UNIMPLEMENTED else [])]
    return Answer(b"", b"", frames.literals([*head, *status]))
