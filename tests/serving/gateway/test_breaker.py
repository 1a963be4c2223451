import time
from contextlib import suppress

import pytest

from digit_client.errors import DeadlineExceededError, DigitError, ModelNotFoundError, UnavailableError
from digit_client.wire import ModelRef
from digit_serving.gateway.breaker import Breaker

SLOW, OTHER = ModelRef(label="canary"), ModelRef(label="stable")


def call(breaker: Breaker, model: ModelRef, error: DigitError | None = None) -> bool:
    """Whether a call that ends like this is made at all."""
    made = False

    def ask() -> None:
        nonlocal made
        made = True
        if error:
            raise error

    with suppress(DigitError):
        breaker.call(model, ask)
    return made


def miss_deadlines(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        assert call(breaker, SLOW, DeadlineExceededError("late"))


@pytest.fixture
def breaker() -> Breaker:
    return Breaker()


def test_a_model_that_keeps_no_deadline_is_asked_no_more(breaker: Breaker) -> None:
    miss_deadlines(breaker, 3)
    # The first after that is the one that is let through to see.
    assert call(breaker, SLOW, DeadlineExceededError("late"))
    with pytest.raises(UnavailableError):
        breaker.call(SLOW, lambda: None)
    assert call(breaker, OTHER)


@pytest.mark.parametrize("outcome", [None, ModelNotFoundError("no"), UnavailableError("away")])
def test_any_other_end_closes_it(breaker: Breaker, outcome: DigitError | None) -> None:
    miss_deadlines(breaker, 2)
    assert call(breaker, SLOW, outcome)
    miss_deadlines(breaker, 3)


def test_one_a_second_is_let_through_until_the_model_is_well(breaker: Breaker) -> None:
    miss_deadlines(breaker, 4)
    assert not call(breaker, SLOW)
    time.sleep(1.1)
    assert call(breaker, SLOW, DeadlineExceededError("late"))
    assert not call(breaker, SLOW)
    time.sleep(1.1)
    assert call(breaker, SLOW)
    assert all(call(breaker, SLOW) for _ in range(5))


def test_models_that_are_named_at_will_are_not_kept_for_ever(breaker: Breaker) -> None:
    for number in range(3000):
        assert call(breaker, ModelRef(version=number), DeadlineExceededError("late"))
    miss_deadlines(breaker, 3)
