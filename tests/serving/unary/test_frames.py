"""HTTP/2's frames and gRPC's messages."""

import pytest
from hpack import Decoder
from hypothesis import given
from hypothesis import strategies as st

from digit_serving.unary import frames
from digit_serving.unary.frames import Frame, ProtocolError, Splitter


@given(payloads=st.lists(st.binary(max_size=300), max_size=5), size=st.integers(1, 400))
def test_frames_are_whole_however_they_are_cut(payloads: list[bytes], size: int) -> None:
    sent = b"".join(frames.frame(frames.PING, 0, stream, data) for stream, data in enumerate(payloads))
    splitter = Splitter()
    got = [frame for at in range(0, len(sent), size) for frame in splitter.feed(sent[at : at + size])]
    assert got == [Frame(frames.PING, 0, stream, data) for stream, data in enumerate(payloads)]


def test_padding_and_priority_are_left_out() -> None:
    flags = frames.PADDED | frames.PRIORITY
    sent = frames.frame(frames.HEADERS, flags, 1, b"\x02" + b"prior" + b"block" + b"\0\0")
    assert [frame.payload for frame in Splitter().feed(sent)] == [b"block"]


@pytest.mark.parametrize(
    "sent",
    [
        frames.frame(frames.DATA, 0, 1, bytes(frames.DEFAULT_FRAME_SIZE + 1)),
        frames.frame(frames.DATA, frames.PADDED, 1, b"\x05pad"),
        frames.frame(frames.DATA, frames.PADDED, 1),
    ],
)
def test_what_breaks_the_rules_is_refused(sent: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(Splitter().feed(sent))


_NAMES, _VALUES = st.binary(min_size=1, max_size=300), st.binary(max_size=40_000)


@given(headers=st.lists(st.tuples(_NAMES, _VALUES), max_size=3))
def test_a_library_reads_our_headers(headers: list[tuple[bytes, bytes]]) -> None:
    decoder = Decoder(max_header_list_size=2**20)
    block = frames.literals(headers)
    assert decoder.decode(block, raw=True) == headers


@pytest.mark.parametrize(("length", "count"), [(1, 1), (frames.DEFAULT_FRAME_SIZE, 1), (40_000, 3)])
def test_long_headers_go_on_in_further_frames(length: int, count: int) -> None:
    got = list(Splitter().feed(frames.header_frames(3, bytes(length), end_stream=True)))
    assert [frame.kind for frame in got] == [frames.HEADERS] + [frames.CONTINUATION] * (count - 1)
    assert [bool(frame.flags & frames.END_HEADERS) for frame in got] == [False] * (count - 1) + [True]
    assert sum(len(frame.payload) for frame in got) == length


def test_settings_come_back() -> None:
    sent = frames.settings(header_table_size=0, initial_window_size=frames.LARGEST_WINDOW)
    (got,) = Splitter().feed(sent)
    assert frames.read_settings(got.payload) == {
        frames.HEADER_TABLE_SIZE: 0,
        frames.INITIAL_WINDOW_SIZE: frames.LARGEST_WINDOW,
    }


def test_a_message_comes_back() -> None:
    assert frames.read_message(frames.message(b"hello")) == b"hello"


@pytest.mark.parametrize("body", [b"", b"\0\0\0\0", b"\0\0\0\0\x02a", b"\x01\0\0\0\x01a"])
def test_what_is_no_whole_message_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        frames.read_message(body)


@pytest.mark.parametrize("seconds", [0.0, 0.0015, 5.0, 99.0, 3600.0, 10_000_000.0])
def test_a_timeout_comes_back(seconds: float) -> None:
    assert frames.read_timeout(frames.timeout(seconds).decode()) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "S", "5x", "-5S", "123456789S", "٣S"])
def test_what_is_no_timeout_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        frames.read_timeout(text)


@given(text=st.text())
def test_an_error_message_comes_back(text: str) -> None:
    sent = frames.quoted(text)
    assert all(0x20 <= byte < 0x7F for byte in sent)
    assert frames.unquoted(sent) == text


@given(headers=st.dictionaries(st.binary(max_size=126), st.binary(max_size=40_000), max_size=5))
def test_our_headers_come_back(headers: dict[bytes, bytes]) -> None:
    assert frames.read_literals(frames.literals(headers.items())) == headers


_PLAIN, _INDEXED, _KEPT, _HUFFMAN = b"\x00\x01a\x01b", b"\x82", b"\x40\x01a\x01b", b"\x00\x81\x1f\x01b"


@given(parts=st.lists(st.sampled_from([_PLAIN, _INDEXED, _KEPT, _HUFFMAN]), max_size=4))
def test_headers_that_are_not_ours_are_left_to_a_library(parts: list[bytes]) -> None:
    block = b"".join(parts)
    ours = set(parts) <= {_PLAIN}
    assert frames.read_literals(block) == (dict(Decoder().decode(block, raw=True)) if ours else None)
    assert frames.read_literals(block + _PLAIN[:-1]) is None
