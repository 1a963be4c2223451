"""The headers of the requests on one connection."""

from functools import lru_cache

from hpack import Decoder, HPACKError, OversizedHeaderListError

from digit_serving.unary import frames
from digit_serving.unary.frames import ProtocolError

Fields = dict[bytes, bytes]

LARGEST_LIST = 2**16
"""Bytes of a request's headers, as HTTP/2 counts them."""


class HeaderReader:
    """Reads header blocks (RFC 7541) in the order of their coming.

    A whole decoder takes as long as all the rest of a call, so it is asked only where it must be: a client is
    told to use no table, after which equal headers are equal bytes.
    """

    def __init__(self) -> None:
        self._decoder = Decoder(LARGEST_LIST)

    def read(self, block: bytes) -> Fields:
        """Raises ProtocolError."""
        fields = frames.read_literals(block)
        if fields is not None:
            return fields
        if self._decoder.header_table_size == 0:
            return _without_table(block)
        return _decode(self._decoder, block)


@lru_cache(maxsize=256)
def _without_table(block: bytes) -> Fields:
    decoder = Decoder(LARGEST_LIST)
    decoder.max_allowed_table_size = decoder.header_table_size = 0
    return _decode(decoder, block)


def _decode(decoder: Decoder, block: bytes) -> Fields:
    try:
        return {bytes(name): bytes(value) for name, value in decoder.decode(block, raw=True)}
    except OversizedHeaderListError as error:
        raise ProtocolError(str(error), frames.ENHANCE_YOUR_CALM) from None
    except (HPACKError, IndexError) as error:
        raise ProtocolError(f"headers that can't be read: {error}", frames.COMPRESSION_ERROR) from None
