"""Unary calls to real gRPC servers."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from digit_serving.unary.answers import CallError
from digit_serving.unary.channel import Channel
from tests import loop
from tests.processes import free_port
from tests.serving.unary.conftest import METHOD, Server


@pytest.fixture
def call(server: Server) -> Iterator[Callable[..., Any]]:
    yield from calling(server.target)


def calling(target: str) -> Iterator[Callable[..., Any]]:
    channel = loop.call(Channel, target)
    yield partial(loop.call, channel.unary_unary(METHOD, bytes, bytes))
    loop.call(channel.close)


def failure(call: Callable[..., Any], message: bytes = b"", timeout: float = 5) -> CallError:
    with pytest.raises(CallError) as caught:
        call(message, timeout=timeout)
    return caught.value


def after(seconds: float) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    """A handler that takes so long."""

    def answer(message: bytes, _context: grpc.ServicerContext) -> bytes:
        time.sleep(seconds)
        return message

    return answer


class TestCalls:
    @pytest.mark.parametrize("size", [0, 1, 16_379, 65_531, 300_000, 20_000_000])
    def test_a_message_goes_there_and_comes_back(self, call: Callable[..., Any], size: int) -> None:
        message = (b"digit" * (size // 5 + 1))[:size]
        assert call(message, timeout=20) == message
        assert call(b"next", timeout=20) == b"next"

    def test_many_more_bytes_than_a_window_on_one_connection(self, call: Callable[..., Any]) -> None:
        message = bytes(1_000_000)
        assert all(call(message, timeout=20) == message for _ in range(40))

    def test_the_metadata_go_along(self, call: Callable[..., Any], server: Server) -> None:
        call(b"", timeout=5, metadata=(("x-request-id", "a" * 300),))
        assert server.calls[0]["x-request-id"] == "a" * 300

    def test_the_deadline_goes_along(self, call: Callable[..., Any], server: Server) -> None:
        server.answer = lambda _, context: str(context.time_remaining()).encode()
        assert 4 < float(call(b"", timeout=5)) <= 5

    def test_greenlets_share_it(self, call: Callable[..., Any], server: Server) -> None:
        server.answer = after(0.01)
        messages = [b"%d" % number for number in range(100)]
        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(lambda message: call(message, timeout=5), messages)) == messages

    def test_a_unix_socket(self, server: Server, tmp_path: Path) -> None:
        server.stop()
        server.start(f"unix:{tmp_path / 'socket'}")
        for call in calling(server.target):
            assert call(b"hello", timeout=5) == b"hello"

    @pytest.mark.parametrize("target", ["", "nowhere", "host:", "host:http", "dns:///host"])
    def test_no_target(self, target: str) -> None:
        with pytest.raises(ValueError, match="host:port"):
            loop.call(Channel, target)


class TestFailures:
    def test_what_the_server_says(self, call: Callable[..., Any], server: Server) -> None:
        server.answer = lambda _, context: context.abort(grpc.StatusCode.NOT_FOUND, "kein Modell für 100 %")
        error = failure(call)
        assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "kein Modell für 100 %")
        assert len(server.calls) == 1

    def test_a_method_that_is_unknown(self, server: Server) -> None:
        channel = loop.call(Channel, server.target)
        unknown = partial(loop.call, channel.unary_unary("/digits.Test/Unknown", bytes, bytes))
        assert failure(unknown).code() is grpc.StatusCode.UNIMPLEMENTED
        loop.call(channel.close)

    def test_the_deadline(self, call: Callable[..., Any], server: Server) -> None:
        server.answer = after(1)
        assert failure(call, timeout=0.2).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        server.answer = lambda message, _: message
        assert call(b"next", timeout=5) == b"next"

    def test_a_server_that_is_slow_but_alive_is_waited_for(
        self, call: Callable[..., Any], server: Server
    ) -> None:
        server.answer = after(4)
        assert call(b"at last", timeout=8) == b"at last"
        assert len(server.calls) == 1

    def test_nobody_there(self) -> None:
        for call in calling(f"127.0.0.1:{free_port()}"):
            assert failure(call).code() is grpc.StatusCode.UNAVAILABLE

    def test_a_name_that_stands_for_nothing(self) -> None:
        for call in calling("nothing.invalid:8500"):
            assert failure(call).code() is grpc.StatusCode.UNAVAILABLE


class TestRetries:
    def test_a_call_that_the_server_drops_is_made_again(
        self, call: Callable[..., Any], server: Server
    ) -> None:
        def once(message: bytes, context: grpc.ServicerContext) -> bytes:
            if len(server.calls) == 1:
                context.abort(grpc.StatusCode.UNAVAILABLE, "")
            return message

        server.answer = once
        assert call(b"hello", timeout=5) == b"hello"
        assert len(server.calls) == 2

    def test_not_for_ever(self, call: Callable[..., Any], server: Server) -> None:
        server.answer = lambda _, context: context.abort(grpc.StatusCode.UNAVAILABLE, "")
        assert failure(call).code() is grpc.StatusCode.UNAVAILABLE
        assert len(server.calls) == 3

    def test_an_outage_is_not_made_worse(self, call: Callable[..., Any], server: Server) -> None:
        server.answer = lambda _, context: context.abort(grpc.StatusCode.UNAVAILABLE, "")
        for _ in range(30):
            failure(call)
        server.calls.clear()
        for _ in range(5):
            failure(call)
        assert len(server.calls) == 5

    def test_a_server_that_starts_anew(self, call: Callable[..., Any], server: Server) -> None:
        call(b"", timeout=5)
        server.stop()
        assert failure(call).code() is grpc.StatusCode.UNAVAILABLE
        server.start(server.target)
        time.sleep(1.5)
        assert call(b"hello", timeout=5) == b"hello"

    def test_a_server_that_is_just_back(self, call: Callable[..., Any], server: Server) -> None:
        for _ in range(4):
            server.stop()
            time.sleep(0.6)
            assert failure(call).code() is grpc.StatusCode.UNAVAILABLE
            server.start(server.target)
            assert call(b"hello", timeout=5) == b"hello"

    def test_connections_that_grow_old_lose_no_call(self, server: Server) -> None:
        server.stop()
        server.start(options={"grpc.max_connection_age_ms": 200, "grpc.max_connection_age_grace_ms": 200})
        for call in calling(server.target):
            until = time.monotonic() + 2
            while time.monotonic() < until:
                assert call(b"hello", timeout=5) == b"hello"
