import asyncio
import time

import pytest

from digit_client import _retries
from digit_client._exceptions import (
    ConnectionFailedError,
    DeadlineExceededError,
    DigitError,
    ModelNotFoundError,
    NoDigitError,
    OverloadedError,
    UnavailableError,
)
from digit_client._retries import Deadline, Retrier, RetryPolicy

QUICK = RetryPolicy(attempts=3, base=0.001, cap=0.002)


class Flaky:
    """Fails with the given errors, one a call, then succeeds."""

    def __init__(self, *errors: DigitError) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self, _left: float) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    async def later(self, left: float) -> str:
        return self(left)


PASSING = [ConnectionFailedError("x"), OverloadedError("x", status=429), UnavailableError("x", status=503)]


@pytest.mark.parametrize("error", PASSING)
def test_what_may_pass_is_tried_again(error: DigitError) -> None:
    flaky = Flaky(error, error)
    assert Retrier(QUICK).run(flaky, Deadline(1)) == "done"
    assert flaky.calls == 3


@pytest.mark.parametrize("error", PASSING)
def test_coroutines_are_tried_again_too(error: DigitError) -> None:
    flaky = Flaky(error, error)
    assert asyncio.run(Retrier(QUICK).run_async(flaky.later, Deadline(1))) == "done"
    assert flaky.calls == 3


@pytest.mark.parametrize("error", [NoDigitError("x"), ModelNotFoundError("x"), DeadlineExceededError("x")])
def test_what_will_not_pass_is_raised_at_once(error: DigitError) -> None:
    flaky = Flaky(error)
    with pytest.raises(type(error)):
        Retrier(QUICK).run(flaky, Deadline(1))
    with pytest.raises(type(error)):
        asyncio.run(Retrier(QUICK).run_async(Flaky(error).later, Deadline(1)))
    assert flaky.calls == 1


def test_the_last_error_is_raised_after_all_attempts() -> None:
    flaky = Flaky(*[UnavailableError(str(number)) for number in range(5)])
    with pytest.raises(UnavailableError, match="2"):
        Retrier(QUICK).run(flaky, Deadline(1))
    assert flaky.calls == 3


def test_pauses_grow_are_drawn_and_capped() -> None:
    policy = RetryPolicy(attempts=99, base=0.1, cap=0.5)
    error = UnavailableError("x")
    for attempt, most in [(1, 0.1), (2, 0.2), (3, 0.4), (4, 0.5), (20, 0.5)]:
        pauses = [policy.pause(attempt, error, 60) for _ in range(50)]
        assert all(pause is not None and 0 <= pause <= most for pause in pauses)
        assert len(set(pauses)) > 40


def test_the_service_s_wish_is_heeded() -> None:
    policy = RetryPolicy(base=0.001)
    error = OverloadedError("x", retry_after=1.5)
    assert policy.pause(1, error, 60) == 1.5
    assert policy.pause(1, error, 1.0) is None, "waiting would outlast the deadline"


def test_one_deadline_bounds_all_attempts() -> None:
    def slow(left: float) -> str:
        time.sleep(min(0.05, left))
        raise ConnectionFailedError("x")

    started = time.monotonic()
    with pytest.raises(DigitError):
        Retrier(RetryPolicy(attempts=1000, base=0.001)).run(slow, Deadline(0.2))
    assert time.monotonic() - started < 0.5


def test_a_service_that_refuses_all_is_not_asked_several_times_for_each_call() -> None:
    flaky = Flaky(*[OverloadedError("x") for _ in range(10_000)])
    retrier = Retrier(RetryPolicy(attempts=3, base=0))
    calls, started = 500, time.monotonic()
    for _ in range(calls):
        with pytest.raises(OverloadedError):
            retrier.run(flaky, Deadline(1))
    retries, seconds = flaky.calls - calls, time.monotonic() - started
    assert _retries.BUDGET <= retries <= _retries.BUDGET + _retries.PER_SECOND * seconds + 1


def test_calls_that_succeed_and_time_allow_further_retries() -> None:
    retrier = Retrier(RetryPolicy(attempts=2, base=0))

    def is_retried() -> bool:
        flaky = Flaky(OverloadedError("x"), OverloadedError("x"))
        with pytest.raises(OverloadedError):
            retrier.run(flaky, Deadline(1))
        return flaky.calls == 2

    while is_retried():
        pass
    for _ in range(round(2 / _retries.PER_SUCCESS)):
        retrier.run(Flaky(), Deadline(1))
    assert is_retried()
    while is_retried():
        pass
    time.sleep(2 / _retries.PER_SECOND)
    assert is_retried()
