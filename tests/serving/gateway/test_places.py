import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from digit_serving.gateway.places import Places


def test_who_came_first_is_next_and_one_at_a_time_is_inside() -> None:
    places, inside, order, go_on = Places(1), [0], [], threading.Event()

    def visit(number: int, comes: threading.Event) -> int:
        comes.set()
        with places:
            inside[0] += 1
            order.append(number)
            most = inside[0]
            assert go_on.wait(10)
            inside[0] -= 1
        return most

    with ThreadPoolExecutor(6) as threads:
        visits = []
        for number in range(6):
            comes = threading.Event()
            visits.append(threads.submit(visit, number, comes))
            assert comes.wait(10)
            # Until it waits at the place.
            time.sleep(0.1)
        assert order == [0]
        go_on.set()
        assert [each.result() for each in visits] == [1] * 6
    assert order == [*range(6)]


def test_no_more_are_inside_than_there_are_places() -> None:
    places, meeting = Places(2), threading.Barrier(2)
    inside: list[None] = []
    counts: list[int] = []

    def visit(_: int) -> None:
        with places:
            inside.append(None)
            # Long enough for a third, were it let in.
            time.sleep(0.05)
            counts.append(len(inside))
            # Nobody gets further alone.
            meeting.wait(10)
            inside.pop()

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(visit, range(6)))
    assert max(counts) == 2


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
