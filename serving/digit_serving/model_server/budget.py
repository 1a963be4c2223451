"""Admission control: bounds what calls become in memory before it is made, one by one and together."""

import ctypes
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, repeat
from threading import TIMEOUT_MAX, Condition, Timer

from tensorflow.core.framework.tensor_pb2 import TensorProto

from digit_serving.errors import ServingError

TimeLeft = Callable[[], float]
"""Seconds that a call has left: 0 once its deadline has passed, or its caller has cancelled it."""

DEFAULT_BYTES = 64 * 2**20
"""Default of `grpc.max_receive_message_length`, which bounds a call as a message and as tensors. The shipped
models take up to a gigabyte for it."""

_SMALL_SHARE = 1 / 16
"""Share of the limit up to which a call is small: 4 MiB, as a page of a megapixel or 1,000 digits."""

_RETURN_SECONDS = 1.0
"""Time from the last large call to the return of its memory, for its answer to be sent."""

# malloc_trim is glibc's; other C libraries lack it.
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


def return_memory() -> None:
    """Return freed memory to the system: allocations between the freed ones keep glibc from doing so."""
    if _malloc_trim:
        _malloc_trim(0)


class Budget:
    """Bytes of the calls that run at the same time. A call that does not fit waits until others end."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._used, self._changed, self._waiting = 0.0, Condition(), deque[object]()

    def check(self, size: float) -> None:
        """Raise ServingError for a call that counts as more bytes than the limit."""
        if size > self.limit:
            raise ServingError(
                f"The request counts as {size:,.0f} bytes; at most {self.limit:,} are allowed. Send fewer "
                "rows in a call, or raise grpc.max_receive_message_length in --grpc_channel_arguments."
            )

    @contextmanager
    def spend(self, size: float, time_left: TimeLeft) -> Iterator[None]:
        """Count the bytes as used during the block, which begins once they fit: first come, first served.

        Memory is returned to the system after the last of several large calls. A small call never waits, so
        that large ones don't delay it. Raises ServingError if the bytes exceed the limit, or do not fit
        before the call's deadline.
        """
        self.check(size)
        if size <= _SMALL_SHARE * self.limit:
            check_deadline(time_left)
            yield
            return
        with self._changed:
            self._waiting.append(turn := object())
            try:
                self._changed.wait_for(
                    lambda: self._waiting[0] is turn and self._used + size <= self.limit,
                    min(time_left(), TIMEOUT_MAX),
                )
                check_deadline(time_left)
                self._used += size
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._used -= size
                self._changed.notify_all()
            if not self._used:
                timer = Timer(_RETURN_SECONDS, return_memory)
                timer.daemon = True
                timer.start()


def check_deadline(time_left: TimeLeft) -> None:
    """Raise ServingError for a call without time left, so that it starts no further work."""
    if time_left() <= 0:
        raise ServingError("Deadline exceeded", "DEADLINE_EXCEEDED")


def shape_size(shape: Iterable[int]) -> float:
    """Return the bytes that a tensor of this shape counts as.

    A value counts as a float32, which models convert pixels to. The second and the third dimension count as
    at least 32: models pad tiny and empty rows, so that one takes as much memory as 32 × 32 values.
    """
    sizes = [*shape]
    sizes += [1] * (2 - len(sizes))
    floors = chain((1, 32, 32), repeat(1))
    # Floats become infinite where Python's integers would grow with each of a million dimensions.
    return 4 * math.prod(float(max(size, floor)) for size, floor in zip(sizes, floors, strict=False))


def inputs_size(inputs: Mapping[str, TensorProto]) -> float:
    """Return the bytes that a request's tensors count as, decoded."""
    return sum(map(_tensor_size, inputs.values()))


def json_size(body: bytes) -> float:
    """Return the bytes that a JSON text counts as: 8 for each comma, colon or bracket, which begins a value.

    As a Python object, a value takes 50 to 100 bytes, which are freed before the model runs.
    """
    return max(len(body), 8 * sum(map(body.count, (b",", b":", b"[", b"{"))))


def _tensor_size(proto: TensorProto) -> float:
    sizes, strings = [dim.size for dim in proto.tensor_shape.dim], proto.string_val
    # The last value fills the rest of the shape, and TensorFlow copies it each time.
    copies = max(math.prod(map(float, sizes)) - len(strings), 0) if strings and 0 not in sizes else 0
    return shape_size(sizes) + copies * len(strings[-1] if strings else b"")
