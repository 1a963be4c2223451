"""Retry policy, deadline, and retry loop with its budget."""

import time
from dataclasses import replace

import pytest

from digit_client import RetryPolicy, _retries
from digit_client._retries import Deadline, Retrier, default_timeout
from digit_core import errors
from digit_core.backends import BLOCKING, run


class FlakyCall:
    """Call that raises the given errors, one each time, then succeeds."""

    def __init__(self, *failures: errors.DigitError) -> None:
        self.failures = list(failures)
        self.count = 0

    async def __call__(self, _timeout: float) -> str:
        self.count += 1
        if self.failures:
            raise self.failures.pop(0)
        return "done"


@pytest.mark.parametrize(
    "error", [errors.NotAnImageError("x"), errors.ModelNotFoundError("x"), errors.DeadlineExceededError("x")]
)
def test_backoff_of_error_that_would_come_again_is_none(error: errors.DigitError) -> None:
    assert RetryPolicy().backoff(1, error, 60) is None


@pytest.mark.parametrize(("attempt", "limit"), [(1, 0.1), (2, 0.2), (3, 0.4), (4, 0.5), (20, 0.5)])
def test_backoff_is_drawn_below_capped_exponential(attempt: int, limit: float) -> None:
    policy = RetryPolicy(max_attempts=99, initial_backoff=0.1, max_backoff=0.5)
    backoffs = [policy.backoff(attempt, errors.UnavailableError("x"), 60) for _ in range(50)]
    assert all(backoff is not None and 0 <= backoff <= limit for backoff in backoffs)
    assert len(set(backoffs)) > 40


def test_backoff_is_at_least_retry_after() -> None:
    policy = RetryPolicy(initial_backoff=0.001)
    error = errors.OverloadedError("x", retry_after=1.5)
    assert policy.backoff(1, error, 60) == 1.5
    assert policy.backoff(1, error, 1.0) is None, "the backoff would outlast the deadline"


def test_budget_shared_by_all_policies_limits_retries_of_failing_service() -> None:
    call = FlakyCall(*[errors.OverloadedError("x") for _ in range(10_000)])
    policy = RetryPolicy(max_attempts=3, initial_backoff=0)
    retrier, calls, started = Retrier(policy, BLOCKING.sleep), 500, time.monotonic()
    for _ in range(calls):
        with pytest.raises(errors.OverloadedError):
            run(replace(retrier, policy=policy).run(call, 1, Deadline(1)))
    retries, seconds = call.count - calls, time.monotonic() - started
    limit = _retries.MAX_TOKENS + _retries.REFILL_PER_SECOND * seconds + 1
    assert _retries.MAX_TOKENS <= retries <= limit


def test_budget_is_refilled_by_successes_and_time() -> None:
    retrier = Retrier(RetryPolicy(max_attempts=2, initial_backoff=0), BLOCKING.sleep)

    def is_retried() -> bool:
        call = FlakyCall(errors.OverloadedError("x"), errors.OverloadedError("x"))
        with pytest.raises(errors.OverloadedError):
            run(retrier.run(call, 1, Deadline(1)))
        return call.count == 2

    while is_retried():
        pass
    for _ in range(round(2 / _retries.TOKENS_PER_SUCCESS)):
        run(retrier.run(FlakyCall(), 1, Deadline(1)))
    assert is_retried()
    while is_retried():
        pass
    time.sleep(2 / _retries.REFILL_PER_SECOND)
    assert is_retried()


def test_default_timeout_is_ten_seconds_or_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIGITS_TIMEOUT", raising=False)
    assert default_timeout() == 10
    monkeypatch.setenv("DIGITS_TIMEOUT", "2.5")
    assert default_timeout() == 2.5
    for text in ("abc", "-1", "inf"):
        monkeypatch.setenv("DIGITS_TIMEOUT", text)
        with pytest.raises(ValueError, match=f"DIGITS_TIMEOUT must be .* not '{text}'"):
            default_timeout()
