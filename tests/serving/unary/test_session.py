"""HTTP/2 where no library can be made to speak it so."""

import time

import pytest
from hpack import Encoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from digit_serving.unary import frames
from digit_serving.unary.frames import Frame
from digit_serving.unary.headers import LARGEST_LIST
from digit_serving.unary.requests import MAX_STREAMS
from tests.serving.unary.methods import Listen
from tests.serving.unary.raw import SETTINGS, RawClient, headers, request

HELLO = ({":status": "200", "content-type": "application/grpc", "grpc-status": "0"}, frames.message(b"hello"))
PING = frames.frame(frames.PING, 0, 0, b"12345678")


def window(size: int) -> bytes:
    return frames.settings(initial_window_size=size)


def is_pong(frame: Frame) -> bool:
    return frame.kind == frames.PING and bool(frame.flags & frames.ACK)


def data_of(client: RawClient) -> list[Frame]:
    return [frame for frame in client.frames if frame.kind == frames.DATA]


def test_an_answer_cut_into_bytes(address: str) -> None:
    with RawClient(address, b"") as client:
        for byte in frames.PREFACE + SETTINGS + request(1, b"hello"):
            client.send(bytes([byte]))
        assert client.answer(1) == HELLO


def test_padding_priorities_and_what_is_unknown(address: str) -> None:
    block, message = headers(), frames.message(b"hello")
    flags = frames.PADDED | frames.PRIORITY | frames.END_HEADERS
    with RawClient(address) as client:
        client.send(frames.frame(2, 0, 1, bytes(5)) + frames.frame(99, 0xFF, 7, b"?"))
        client.send(frames.frame(frames.HEADERS, flags, 1, b"\x03" + bytes(5) + block + bytes(3)))
        client.send(frames.frame(frames.DATA, frames.PADDED, 1, b"\x02" + message[:4] + bytes(2)))
        client.send(frames.frame(frames.DATA, frames.END_STREAM, 1, message[4:]))
        assert client.answer(1) == HELLO


def test_headers_in_pieces_and_trailers(address: str) -> None:
    block, data = headers(), frames.frame(frames.DATA, 0, 1, frames.message(b"hello"))
    with RawClient(address) as client:
        client.send(frames.frame(frames.HEADERS, 0, 1, block[:9]))
        client.send(frames.frame(frames.CONTINUATION, 0, 1, block[9:20]))
        client.send(frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, block[20:]) + data)
        client.send(frames.header_frames(1, frames.literals([(b"trailer", b"x")]), end_stream=True))
        assert client.answer(1) == HELLO


def test_headers_from_tables(address: str) -> None:
    encoder, fields = Encoder(), list((frames.read_literals(headers()) or {}).items())
    data = frames.frame(frames.DATA, frames.END_STREAM, 1, frames.message(b"hello"))
    with RawClient(address) as client:
        for stream in (1, 3, 5, 7):
            if stream == 5:
                encoder.header_table_size = 0
            block = encoder.encode(fields)
            client.send(frames.header_frames(stream, block) + data[:8] + bytes([stream]) + data[9:])
            assert client.answer(stream) == HELLO


def test_answers_wait_for_windows(address: str) -> None:
    message = b"x" * 200_000
    with RawClient(address, frames.PREFACE + window(10)) as client:
        body = frames.message(message)
        parts = [body[at : at + 16_384] for at in range(0, len(body), 16_384)]
        client.send(frames.header_frames(1, headers()))
        client.send(b"".join(frames.frame(frames.DATA, 0, 1, part) for part in parts))
        client.send(frames.frame(frames.DATA, frames.END_STREAM, 1))
        client.wait_for(lambda frame: frame.kind == frames.DATA and len(frame.payload) == 10)
        client.send(window(0) + window(1000) + PING)
        client.wait_for(is_pong)
        assert [len(frame.payload) for frame in data_of(client)] == [10, 990]
        client.send(window(frames.LARGEST_WINDOW) + PING)  # the connection's is still as small as at first
        client.wait_for(lambda _: sum(len(frame.payload) for frame in data_of(client)) == 65_535)
        client.send(request(3, b""))  # of which the head can be sent
        client.wait_for(lambda frame: frame.stream == 3)
        client.send(frames.window_update(0, frames.LARGEST_WINDOW - frames.DEFAULT_WINDOW))
        assert client.answer(1) == (HELLO[0], body)
        assert client.answer(3) == (HELLO[0], frames.message(b""))


def test_a_client_that_takes_nothing_holds_nobody_up(address: str) -> None:
    with RawClient(address, frames.PREFACE + window(0)) as stuck, RawClient(address) as client:
        stuck.send(b"".join(request(stream, b"hello") for stream in range(1, 41, 2)))
        client.send(request(1, b"hello"))
        assert client.answer(1) == HELLO


def test_more_calls_than_allowed_are_refused(address: str) -> None:
    with RawClient(address) as client:
        last = 2 * MAX_STREAMS + 1
        for stream in range(1, last + 1, 2):
            client.send(frames.header_frames(stream, headers()))
        refused = client.wait_for(lambda frame: frame.kind == frames.RST_STREAM)
        assert (refused.stream, frames.number(refused.payload)) == (last, frames.REFUSED_STREAM)
        client.send(request(last, b"hello")[-19:] + frames.reset(1, 8) + request(last + 2, b"hello"))
        assert client.answer(last + 2) == HELLO


def test_calls_dropped_again_and_again(address: str) -> None:
    with RawClient(address) as client:
        for stream in range(1, 2001, 2):
            client.send(request(stream, b"0.001", "/test/Sleep") + frames.reset(stream, 8))
        client.send(PING)
        client.wait_for(is_pong)
        time.sleep(0.5)
        client.send(request(2001, b"hello"))
        assert client.answer(2001) == HELLO


def test_pings_are_answered_while_a_call_is_under_way(address: str) -> None:
    with RawClient(address) as client:
        client.send(request(1, b"0", "/test/Sleep"))
        client.answer(1)
        client.send(request(3, b"3", "/test/Sleep"))
        time.sleep(0.01)
        client.send(PING)
        client.wait_for(is_pong)
        assert all(frame.stream != 3 for frame in client.frames)
        assert client.answer(3)[1] == frames.message(b"3")


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frames.header_frames(2, headers()), frames.PROTOCOL_ERROR),
        (frames.header_frames(0, headers()), frames.PROTOCOL_ERROR),
        (request(1, b"x") + frames.header_frames(1, headers()), frames.PROTOCOL_ERROR),
        (frames.frame(frames.DATA, 0, 1), frames.PROTOCOL_ERROR),
        (request(1, b"1", "/test/Sleep") + frames.frame(frames.DATA, 0, 1), frames.PROTOCOL_ERROR),
        (frames.frame(frames.CONTINUATION, 0, 1), frames.PROTOCOL_ERROR),
        (frames.frame(frames.HEADERS, 0, 1) + PING, frames.PROTOCOL_ERROR),
        (frames.frame(frames.HEADERS, 0, 1) + frames.frame(frames.CONTINUATION, 0, 3), frames.PROTOCOL_ERROR),
        (frames.frame(frames.PUSH_PROMISE, 0, 1, bytes(4)), frames.PROTOCOL_ERROR),
        (frames.reset(1, 8), frames.PROTOCOL_ERROR),
        (frames.window_update(0, 0), frames.PROTOCOL_ERROR),
        (frames.window_update(1, 1), frames.PROTOCOL_ERROR),
        (frames.window_update(0, frames.LARGEST_WINDOW), frames.FLOW_CONTROL_ERROR),
        (window(2**31), frames.FLOW_CONTROL_ERROR),
        (frames.frame(frames.SETTINGS, 0, 0, b"half"), frames.FRAME_SIZE_ERROR),
        (frames.frame(frames.SETTINGS, 0, 1), frames.PROTOCOL_ERROR),
        (frames.frame(frames.PING, 0, 0, b"short"), frames.FRAME_SIZE_ERROR),
        (frames.frame(frames.DATA, 0, 1, bytes(16_385)), frames.FRAME_SIZE_ERROR),
        (frames.header_frames(1, b"\xff\xff\xff\xff"), frames.COMPRESSION_ERROR),
        (frames.header_frames(1, frames.literals([(b"a", bytes(LARGEST_LIST))])), frames.ENHANCE_YOUR_CALM),
        (
            frames.frame(frames.HEADERS, 0, 1) + 99 * frames.frame(frames.CONTINUATION, 0, 1),
            frames.ENHANCE_YOUR_CALM,
        ),
    ],
)
def test_what_breaks_the_rules_ends_the_connection(address: str, sent: bytes, code: int) -> None:
    with RawClient(address) as client:
        client.send(sent)
        assert client.error() == code


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", frames.PREFACE + PING])
def test_what_is_no_http2_ends_the_connection(address: str, start: bytes) -> None:
    with RawClient(address, start) as client:
        assert client.error() == frames.PROTOCOL_ERROR


@pytest.mark.parametrize(
    ("changed", "body", "expected"),
    [
        ({"content-type": "text/html"}, b"", {":status": "415"}),
        ({}, b"", {"grpc-status": "13"}),
        ({}, b"\0\0\0\0\x09half", {"grpc-status": "13"}),
        ({"grpc-timeout": "soon"}, frames.message(b""), {"grpc-status": "13"}),
        ({"grpc-timeout": "0m"}, frames.message(b""), {"grpc-status": "4"}),
        ({"grpc-encoding": "snappy"}, b"\1\0\0\0\1x", {"grpc-status": "12"}),
        ({"grpc-encoding": "snappy"}, b"\1\0\0\0\1x", {"grpc-accept-encoding": "identity, deflate, gzip"}),
        ({"grpc-encoding": "gzip"}, b"\1\0\0\0\1x", {"grpc-status": "13"}),
    ],
)
def test_what_is_no_call(
    address: str, changed: dict[str, str], body: bytes, expected: dict[str, str]
) -> None:
    with RawClient(address) as client:
        client.send(frames.header_frames(1, headers(**changed)))
        client.send(frames.frame(frames.DATA, frames.END_STREAM, 1, body))
        fields, answer = client.answer(1)
        assert fields.items() >= expected.items()
        assert answer == b""


def test_a_flood_of_pings_from_a_client_that_reads_nothing(address: str) -> None:
    with RawClient(address) as flood, RawClient(address) as client:
        flood.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):  # it has to stop, long before that is sent
            flood.send(PING * 5_000_000)
        client.send(request(1, b"hello"))
        assert client.answer(1) == HELLO


def test_an_aged_connection_takes_calls_until_its_client_knows(listen: Listen) -> None:
    with RawClient(listen(max_age=0.1)) as client:
        client.wait_for(lambda frame: frame.kind == frames.GOAWAY)
        client.send(request(1, b"hello"))
        assert client.answer(1) == HELLO
        farewell = client.wait_for(lambda frame: frame.kind == frames.PING)
        client.send(frames.frame(frames.PING, frames.ACK, 0, farewell.payload) + request(3, b"late"))
        assert client.error() == frames.NO_ERROR
        assert [frames.number(frame.payload) for frame in client.frames if frame.kind == frames.GOAWAY] == [
            frames.LARGEST_WINDOW,
            1,
        ]


def test_a_client_that_does_not_react_is_left_all_the_same(listen: Listen) -> None:
    with RawClient(listen(max_age=0.1)) as client:
        assert client.error() == frames.NO_ERROR


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sent=st.lists(
        st.binary(max_size=50)
        | st.sampled_from([request(1, b"x"), request(3, b"y"), PING, window(0), frames.reset(1, 8)])
        | st.builds(frames.frame, st.integers(0, 10), st.integers(0, 255), st.integers(0, 5), st.binary()),
        max_size=6,
    )
)
def test_whatever_comes_the_next_connection_works(address: str, sent: list[bytes]) -> None:
    with RawClient(address) as client:
        client.send(b"".join(sent))
    with RawClient(address) as client:
        client.send(request(1, b"hello"))
        assert client.answer(1) == HELLO
