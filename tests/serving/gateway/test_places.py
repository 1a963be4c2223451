import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from digit_serving.gateway.places import Places


@pytest.mark.parametrize("count", [1, 2])
def test_no_more_are_inside_and_who_came_first_is_next(count: int) -> None:
    places, inside, order, go_on = Places(count), [0], [], threading.Event()

    def visit(number: int) -> int:
        with places:
            inside[0] += 1
            order.append(number)
            most = inside[0]
            assert go_on.wait(5)
            inside[0] -= 1
        return most

    with ThreadPoolExecutor(6) as threads:
        visits = []
        for number in range(6):
            visits.append(threads.submit(visit, number))
            # In this order.
            time.sleep(0.05)
        assert order == [*range(count)]
        go_on.set()
        assert max(each.result() for each in visits) == count
    # Of two who are let in at the same moment either may be the first to say so.
    assert all(abs(number - place) < count for place, number in enumerate(order))
    assert sorted(order) == [*range(6)]


def test_a_place_is_left_with_an_error_too() -> None:
    places = Places(1)
    for _ in range(2):
        with pytest.raises(ValueError, match="no"), places:
            raise ValueError("no")


def test_many_take_turns() -> None:
    places, count = Places(3), [0]

    def visit(_: int) -> None:
        with places:
            count[0] += 1

    with ThreadPoolExecutor(20) as threads:
        list(threads.map(visit, range(2000)))
    assert count == [2000]
