"""The server as clients of grpcio meet it."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from digit_serving.unary.server import Server
from tests.processes import wait_until
from tests.serving.unary.methods import HANDLERS, PROBLEM, Listen, method
from tests.serving.unary.raw import RawClient, request

UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


@pytest.fixture
def channel(address: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address, UNLIMITED) as channel:
        yield channel


def failure(call: Any, *arguments: Any, **named: Any) -> tuple[StatusCode, str | None]:
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **named)
    return caught.value.code(), caught.value.details()


@pytest.mark.parametrize("size", [0, 1, 16_379, 16_380, 70_000, 20_000_000])
def test_messages_of_all_sizes(channel: grpc.Channel, size: int) -> None:
    message = bytes(range(251)) * (size // 251 + 1)
    assert method(channel, "Echo")(message[:size], timeout=30) == message[:size]


def test_calls_at_once_on_one_connection(channel: grpc.Channel) -> None:
    echo, messages = method(channel, "Echo"), [b"%d" % number * 5000 for number in range(300)]
    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(lambda message: echo(message, timeout=30), messages)) == messages


def test_a_slow_call_holds_nobody_up(channel: grpc.Channel) -> None:
    echo, sleep = method(channel, "Echo"), method(channel, "Sleep")
    sleep(b"0", timeout=5)  # so that the next one is expected to be quick as well
    slow = sleep.future(b"3", timeout=10)
    time.sleep(0.3)
    echo(b"x", timeout=5)
    assert not slow.done()
    assert slow.result() == b"3"


@pytest.mark.parametrize("warm_up", [b"0", b"0.01"])
def test_pings_are_answered_during_a_slow_call(address: str, warm_up: bytes) -> None:
    keepalive = (("grpc.keepalive_time_ms", 100), ("grpc.keepalive_timeout_ms", 500))
    with grpc.insecure_channel(address, keepalive) as channel:
        sleep = method(channel, "Sleep")
        sleep(warm_up, timeout=5)
        assert sleep(b"2", timeout=10) == b"2"


def test_metadata_and_deadlines_arrive(channel: grpc.Channel) -> None:
    left = method(channel, "Left")
    for number in range(3):
        metadata = (("x-request-id", "id" * number), ("data-bin", bytes(range(256))))
        assert 4 < float(left(b"", timeout=5, metadata=metadata)) < 5.1  # gRPC rounds up
    assert left(b"") == b"inf"


def test_a_deadline_passes_and_the_connection_goes_on(channel: grpc.Channel) -> None:
    assert failure(method(channel, "Sleep"), b"0.5", timeout=0.1)[0] is StatusCode.DEADLINE_EXCEEDED
    assert method(channel, "Echo")(b"x", timeout=5) == b"x"


def test_a_call_is_cancelled_and_the_connection_goes_on(channel: grpc.Channel) -> None:
    call = method(channel, "Sleep").future(b"0.5", timeout=5)
    time.sleep(0.1)
    call.cancel()
    assert call.cancelled()
    assert method(channel, "Echo")(b"x", timeout=5) == b"x"


def test_errors(channel: grpc.Channel) -> None:
    assert failure(method(channel, "Refuse"), b"") == (StatusCode.NOT_FOUND, PROBLEM)
    assert failure(method(channel, "None"), b"") == (StatusCode.UNIMPLEMENTED, "Method not found!")


def test_an_exception_is_logged(channel: grpc.Channel, caplog: pytest.LogCaptureFixture) -> None:
    expected = (StatusCode.UNKNOWN, "Exception calling application: by intention")
    assert failure(method(channel, "Fail"), b"") == expected
    assert "/test/Fail" in caplog.text
    assert "by intention" in caplog.text


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_messages_are_read(channel: grpc.Channel, compression: grpc.Compression) -> None:
    echo = method(channel, "Echo")
    assert echo(b"x" * 100_000, timeout=5, compression=compression) == b"x" * 100_000


def test_connections_grow_no_older_than_they_should(listen: Listen) -> None:
    address = listen(max_age=0.5, age_grace=5.0)
    states: list[grpc.ChannelConnectivity] = []
    with grpc.insecure_channel(address) as channel:
        channel.subscribe(states.append)
        assert method(channel, "Sleep")(b"1.5", timeout=5) == b"1.5"
        wait_until(lambda: states[-1] is grpc.ChannelConnectivity.IDLE)


def test_no_call_fails_where_connections_are_short(listen: Listen) -> None:
    with grpc.insecure_channel(listen(max_age=0.1)) as channel:
        sleep, until = method(channel, "Sleep"), time.monotonic() + 3
        with ThreadPoolExecutor(4) as pool:
            while time.monotonic() < until:
                assert list(pool.map(lambda _: sleep(b"0.001", timeout=5), range(100))) == [b"0.001"] * 100


def test_an_age_has_its_grace(listen: Listen) -> None:
    with grpc.insecure_channel(listen(max_age=0.2, age_grace=0.2)) as channel:
        assert failure(method(channel, "Sleep"), b"3", timeout=10)[0] is StatusCode.UNAVAILABLE


def test_what_is_under_way_is_answered_before_the_end(ending: tuple[Server, str]) -> None:
    with grpc.insecure_channel(ending[1]) as channel:
        slow = method(channel, "Sleep").future(b"1", timeout=10)
        time.sleep(0.3)
        ending[0].stop(5)
        ending[0].join()
        assert slow.result() == b"1"
        assert failure(method(channel, "Echo"), b"", timeout=5)[0] is StatusCode.UNAVAILABLE


def test_the_end_waits_for_nobody_after_the_grace(ending: tuple[Server, str]) -> None:
    with grpc.insecure_channel(ending[1]) as channel:
        slow = method(channel, "Sleep").future(b"3", timeout=10)
        time.sleep(0.3)
        ending[0].stop(0.2)
        ending[0].join()
        assert slow.exception().code() is StatusCode.UNAVAILABLE


def test_nothing_stays_of_connections_that_are_gone(address: str) -> None:
    before = threading.active_count()
    for number in range(30):
        with RawClient(address) as client:
            client.send(request(1, b"0.2", "/test/Sleep")[: 20 + 20 * number])
    wait_until(lambda: threading.active_count() <= before + 4)  # four threads for slow calls


def test_a_socket_file_goes_with_its_server(tmp_path: Path) -> None:
    path, listener = tmp_path / "socket", socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    server = Server(HANDLERS, 1)
    server.listen(listener)
    with grpc.insecure_channel(f"unix:{path}") as channel:
        assert method(channel, "Echo")(b"hello", timeout=5) == b"hello"
    server.stop(1)
    server.join()
    assert not path.exists()
