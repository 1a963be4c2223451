"""Flow of a call for many images: its window, its retries, and what a picture or a service can do to it."""

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from threading import Lock, Thread
from typing import Any

import pytest
from werkzeug.wrappers import Request, Response

from digit_client import AsyncClient, Client, RetryPolicy
from digit_client._flow import Flow
from digit_client._retries import Deadline, Retrier
from digit_core import errors
from digit_core.backends import BLOCKING, run
from tests.client.faulty_server import DIGITS, FaultyServer, failure
from tests.core.blocking import BlockingAsync
from tests.processes import free_port, wait_until

FAST = RetryPolicy(initial_backoff=0.001, max_backoff=0.05, patience=1)


class Echo(FaultyServer):
    """Gateway that answers each picture, a text, with the digit of its length; `before` may answer first."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(port)
        self.before: Callable[[list[bytes]], Response | None] = lambda _: None
        self.sizes: list[int] = []

    def respond(self, request: Request) -> Response:
        if request.path == "/v1/models":
            return failure(404)()
        contents = [part.read() for part in request.files.getlist("image")]
        self.sizes.append(len(contents))
        if refusal := self.before(contents):
            return refusal
        items = [self._item(len(content) % 10) for content in contents]
        return Response(json.dumps({"model": DIGITS, "predictions": items}))

    def _item(self, digit: int) -> dict[str, Any]:
        probabilities = [float(index == digit) for index in range(10)]
        return {"label": str(digit), "index": digit, "confidence": 1.0, "probabilities": probabilities}


@pytest.fixture
def server() -> Iterator[Echo]:
    with Echo() as server:
        yield server


@pytest.fixture(params=[Client, partial(BlockingAsync, AsyncClient)], ids=["blocking", "asyncio"])
def client(request: pytest.FixtureRequest, server: Echo) -> Iterator[Any]:
    with request.param(server.url, retries=FAST) as client:
        yield client


def pictures(count: int) -> list[bytes]:
    """Return texts of a request each: its size is that of a photograph."""
    return [bytes(70_000 + index) for index in range(count)]


def assert_whole(outcomes: Any, count: int) -> None:
    """Assert that all pictures of `pictures` are answered, in order."""
    assert [getattr(each, "digit", each) for each in outcomes] == [index % 10 for index in range(count)]


def new_flow(ceiling: int = 8, timeout: float = 10, **options: Any) -> Flow:
    return Flow(Retrier(FAST, BLOCKING.sleep), ceiling, timeout, Deadline(**{"seconds": None, **options}))


def test_flow_doubles_at_first_and_grows_by_a_request_a_window_after_it_was_halved() -> None:
    flow = new_flow(16)

    def window(depth: int, seconds: float = 0) -> None:
        """Send so many requests, which are in flight together."""

        async def send(_: float) -> None:
            if depth > 1:
                window(depth - 1, seconds)
            time.sleep(seconds)

        run(flow.run(send))

    async def refuse_once(_: float) -> None:
        if not refusals:
            refusals.append(flow.limit)
            raise errors.OverloadedError("later")

    refusals: list[int] = []
    for _ in range(5):
        window(flow.limit)
    assert flow.limit > 8
    run(flow.run(refuse_once))
    halved = flow.limit
    assert halved == refusals[0] // 2
    for _ in range(3):
        window(flow.limit)
    assert halved < flow.limit <= halved + 3
    for _ in range(40):
        window(flow.limit)
    assert flow.limit == 16
    assert new_flow(1).limit == 1


def test_flow_does_not_grow_by_slow_answers_or_while_requests_are_few() -> None:
    async def send(_: float) -> None:
        time.sleep(0.03)

    slow, few = new_flow(8, timeout=0.05), new_flow(8)
    for flow in (slow, few):
        for _ in range(4):
            run(flow.run(send))
        assert flow.limit == 2


def test_predict_many_halves_its_window_under_overload_and_loses_nothing(client: Any, server: Echo) -> None:
    lock, most = Lock(), [0]

    def refuse_more_than_four(_: list[bytes]) -> Response | None:
        with lock:
            most[0] = max(most[0], server.in_flight)
            too_many = server.in_flight > 4
        time.sleep(0.03)
        return failure(429)() if too_many else None

    server.before = refuse_more_than_four
    assert_whole(client.predict_many(pictures(150), concurrency=128), 150)
    assert 4 < most[0] < 12
    assert server.requests < 300


def test_predict_many_missed_deadlines_slow_it_down_and_lose_nothing(client: Any, server: Echo) -> None:
    def slow_together(_: list[bytes]) -> None:
        # Each request in flight costs all others time, as on a machine with one core.
        time.sleep(0.1 * server.in_flight)

    server.before = slow_together
    assert_whole(client.predict_many(pictures(30), concurrency=32, timeout=0.45), 30)
    assert server.most_in_flight <= 8


def test_predict_many_pictures_that_take_too_long_together_come_in_smaller_requests(
    client: Any, server: Echo
) -> None:
    def slow_by_picture(contents: list[bytes]) -> None:
        time.sleep(0.06 * len(contents))

    server.before = slow_by_picture
    outcomes = client.predict_many([b"x"] * 16, timeout=0.5)
    assert {each.digit for each in outcomes} == {1}
    assert server.sizes[0] == 16
    assert min(server.sizes) < 16


def test_predict_many_picture_that_fails_its_request_takes_no_other_with_it(
    client: Any, server: Echo
) -> None:
    def refuse(contents: list[bytes]) -> Response | None:
        document = {"status": 418, "code": "of_a_later_service", "detail": "No."}
        return Response(json.dumps(document), 418) if b"bad" in contents else None

    server.before = refuse
    outcomes = client.predict_many([b"a", b"bad", b"ab", b"abcd"] * 4)
    assert [getattr(each, "digit", each.__class__) for each in outcomes] == [1, errors.ServiceError, 2, 4] * 4
    assert outcomes[1].reason == "of_a_later_service"


def test_predict_many_picture_that_always_fails_is_given_up_while_others_are_answered(
    client: Any, server: Echo
) -> None:
    poison = bytes(80_000)
    server.before = lambda contents: failure(503)() if poison in contents else None
    first, poisoned, *others = client.predict_many([*pictures(1), poison, *pictures(120)])
    assert isinstance(poisoned, errors.UnavailableError)
    assert_whole([first, *others[1:]], 120)


def test_predict_many_service_that_restarts_costs_time_and_no_result() -> None:
    port = free_port()
    server = Echo(port)
    with Client(f"http://127.0.0.1:{port}", retries=FAST) as client:

        def restart() -> None:
            wait_until(lambda: server.requests > 200)
            server.__exit__()
            time.sleep(0.5)
            again.append(Echo(port))

        again: list[Echo] = []
        thread = Thread(target=restart)
        thread.start()
        outcomes = client.predict_many(pictures(1000), concurrency=32)
        thread.join()
    assert_whole(outcomes, 1000)
    assert again[0].requests > 100
    again[0].__exit__()


def test_predict_many_absent_service_fails_at_once_for_all_pictures(client: Any, server: Echo) -> None:
    server.before = lambda _: failure(503)()
    started = time.monotonic()
    outcomes = client.predict_many(pictures(200))
    assert {type(each) for each in outcomes} == {errors.UnavailableError}
    assert server.requests < 20
    assert time.monotonic() - started < 5


def test_predict_many_silent_service_is_given_up_after_the_policys_patience(
    client: Any, server: Echo
) -> None:
    numbers = count()
    server.before = lambda _: failure(503)() if next(numbers) >= 5 else None
    started = time.monotonic()
    outcomes = client.predict_many(pictures(50), timeout=0.5)
    assert 1.4 < time.monotonic() - started < 10
    # A busy machine may answer one of the five after its timeout.
    assert 3 <= sum(isinstance(each, errors.DigitError) for each in outcomes) < 50


def test_predict_many_deadline_ends_the_call_with_an_error_for_each_picture_left(
    client: Any, server: Echo
) -> None:
    server.before = lambda _: time.sleep(0.1)
    started = time.monotonic()
    outcomes = client.predict_many(pictures(100), concurrency=2, deadline=1)
    assert time.monotonic() - started < 3
    assert_whole(outcomes[:2], 2)
    assert {type(each) for each in outcomes[40:]} == {errors.DeadlineExceededError}
    # A deadline of the caller also decides how long an absent service is waited for.
    server.before = lambda _: failure(503)()
    started = time.monotonic()
    client.predict_many(pictures(2), deadline=0.5)
    assert time.monotonic() - started > 0.4


def test_predict_many_attempts_count_from_when_a_picture_is_sent(client: Any, server: Echo) -> None:
    server.before = lambda _: time.sleep(0.1)
    assert_whole(client.predict_many(pictures(8), concurrency=1, timeout=0.4), 8)


def test_predict_deadline_bounds_all_attempts_of_one_picture(client: Any, server: Echo) -> None:
    server.before = lambda _: failure(503, **{"Retry-After": "5"})()
    with pytest.raises(errors.UnavailableError):
        client.predict(b"x", deadline=0.3)
    assert server.requests == 1


def test_predict_many_without_retries_sends_each_picture_once(client: Any, server: Echo) -> None:
    server.before = lambda _: failure(503)()
    once = client.with_options(retries=RetryPolicy(max_attempts=1))
    outcomes = once.predict_many(pictures(5))
    assert (len(outcomes), server.requests) == (5, 5)
