"""Budget of running calls: what a call may become, and whom it makes wait."""

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from digit_serving.errors import ServingError
from digit_serving.model_server.budget import Budget, shape_size
from tests.processes import wait_until


def spend(budget: Budget, size: float, seconds: float = 10.0) -> str:
    """Spend bytes for a moment. Return OK, or the code of the error."""
    deadline = time.monotonic() + seconds
    try:
        with budget.spend(size, lambda: max(deadline - time.monotonic(), 0.0)):
            return "OK"
    except ServingError as error:
        return error.code


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        ((), 32),
        ((3,), 3 * 32),
        ((3, 784), 3 * 784),
        ((3, 0), 3 * 32),
        ((3, 28, 28), 3 * 32 * 32),
        ((3, 224, 224, 3), 3 * 224 * 224 * 3),
        ((2**62,) * 100_000, math.inf),
    ],
)
def test_shape_size_counts_a_value_as_four_bytes_and_a_tiny_row_as_more(
    shape: tuple[int, ...], values: float
) -> None:
    assert shape_size(shape) == 4 * values


def test_spend_more_than_the_limit_raises_number_and_way_out() -> None:
    message = (
        "The request counts as 2,000 bytes; at most 1,000 are allowed. Send fewer rows in a call, or raise"
    )
    with pytest.raises(ServingError, match=message):
        Budget(1000).check(2000)
    assert spend(Budget(1000), 2000) == "INVALID_ARGUMENT"


def test_calls_together_stay_within_the_limit_first_come_first_served() -> None:
    budget, release, order = Budget(100), threading.Event(), []

    def call(name: str, size: float) -> None:
        with budget.spend(size, lambda: 10.0):
            order.append(name)
            release.wait(10)

    with ThreadPoolExecutor() as pool:
        first = pool.submit(call, "first", 60)
        wait_until(lambda: order == ["first"])
        large = pool.submit(call, "large", 50)
        time.sleep(0.1)
        # A call that would fit does not overtake the large one that waits. A small call needs no turn.
        assert spend(budget, 10, 0.2) == "DEADLINE_EXCEEDED"
        assert spend(budget, 6, 0.2) == "OK"
        assert spend(budget, 6, 0) == "DEADLINE_EXCEEDED"
        assert order == ["first"]
        release.set()
        first.result(10)
        large.result(10)
    assert order == ["first", "large"]
    assert spend(budget, 100) == "OK"


def test_call_that_fails_frees_its_bytes() -> None:
    budget = Budget(100)
    with pytest.raises(MemoryError), budget.spend(100, lambda: 10.0):
        raise MemoryError
    assert spend(budget, 100, 0.0) == "DEADLINE_EXCEEDED"
    assert spend(budget, 100) == "OK"
