import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from digit_serving import greenlets
from digit_serving.gateway.turns import Turns
from tests import loop


def work(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


async def longest_pause(seconds: float) -> float:
    """How long the loop looked at nothing else, within that time."""
    longest, until = 0.0, time.perf_counter() + seconds
    while (now := time.perf_counter()) < until:
        await asyncio.sleep(0)
        longest = max(longest, time.perf_counter() - now)
    return longest


def all_at_once(turns: Turns | None, count: int) -> tuple[list[int], float]:
    """In which order so many are worked on that come together, and the loop's longest pause meanwhile."""
    order: list[int] = []

    def visit(number: int) -> None:
        if turns:
            turns.take()
        order.append(number)
        work(0.004)

    async def visit_all() -> float:
        pause = asyncio.create_task(longest_pause(0.2))
        await asyncio.gather(*(greenlets.run(visit, number) for number in range(count)))
        return await pause

    return order, loop.call(lambda: greenlets.wait_for(visit_all()))


def test_the_loop_is_not_kept_from_all_else() -> None:
    order, pause = all_at_once(Turns(), 40)
    assert order == [*range(40)]
    _, without = all_at_once(None, 40)
    assert pause < without / 3


def test_one_alone_waits_for_nobody() -> None:
    turns = Turns()
    for _ in range(3):
        assert all_at_once(turns, 1)[0] == [0]


def test_in_a_thread_it_is_always_ones_turn() -> None:
    turns = Turns()

    def visit(number: int) -> int:
        turns.take()
        return number

    with ThreadPoolExecutor(4) as threads:
        assert [*threads.map(visit, range(8))] == [*range(8)]
