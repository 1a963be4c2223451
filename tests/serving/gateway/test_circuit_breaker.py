"""Circuit breaker with a clock that the tests set."""

import pytest

from digit_client import UnavailableError
from digit_client.tfserving.codec import ModelRef
from digit_serving.gateway.circuit_breaker import CircuitBreaker
from tests.serving.gateway.conftest import ManualClock

SLOW, OTHER = ModelRef("digits", label="canary"), ModelRef("digits", label="stable")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def breaker(clock: ManualClock) -> CircuitBreaker:
    return CircuitBreaker(clock)


def allows(breaker: CircuitBreaker, model: ModelRef = SLOW) -> bool:
    try:
        breaker.check(model)
    except UnavailableError:
        return False
    return True


def time_out(breaker: CircuitBreaker, times: int) -> None:
    for _ in range(times):
        breaker.record_timeout(SLOW)


def test_circuit_after_three_timeouts_opens_for_that_model_only(breaker: CircuitBreaker) -> None:
    time_out(breaker, 2)
    assert all(allows(breaker) for _ in range(5))
    time_out(breaker, 1)
    assert [allows(breaker) for _ in range(3)] == [True, False, False]
    assert allows(breaker, OTHER)


def test_circuit_answer_between_timeouts_stays_closed(breaker: CircuitBreaker) -> None:
    time_out(breaker, 2)
    breaker.record_answer(SLOW)
    time_out(breaker, 2)
    assert all(allows(breaker) for _ in range(5))


def test_circuit_open_allows_one_request_a_second_until_answer(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    time_out(breaker, 3)
    assert [allows(breaker), allows(breaker)] == [True, False]
    clock.now += 1
    assert [allows(breaker), allows(breaker)] == [True, False]
    breaker.record_answer(SLOW)
    assert all(allows(breaker) for _ in range(5))


def test_circuit_open_allows_one_request_in_each_interval(clock: ManualClock) -> None:
    breaker = CircuitBreaker(clock, retry_seconds=60)
    time_out(breaker, 3)
    trials = []
    for _ in range(150):
        if allows(breaker):
            trials.append(clock.now)
            time_out(breaker, 1)
        clock.now += 1
    assert trials == [0, 60, 120]


def test_circuits_of_thousands_of_models_stay_usable(breaker: CircuitBreaker) -> None:
    for number in range(3000):
        breaker.record_timeout(ModelRef("digits", version=number))
    time_out(breaker, 3)
    assert [allows(breaker), allows(breaker)] == [True, False]
