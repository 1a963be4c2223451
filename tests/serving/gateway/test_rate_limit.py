"""RateLimiter that several gateways count together, in a real Redis."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from digit_serving.gateway.errors import RateLimitedError
from digit_serving.gateway.rate_limit import RateLimiter
from tests import greenlet_loop
from tests.processes import accepts, free_port, wait_until


class Redis:
    """A server on a port of its own, which keeps nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self.url = f"redis://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        options = ["--port", str(self._port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder)]
        self._process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        wait_until(lambda: accepts(self._port), self._process)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    if not shutil.which("redis-server"):
        pytest.skip("redis-server is not installed")
    server = Redis(tmp_path)
    yield server
    server.stop()


def is_refused(rates: RateLimiter, caller: str = "shop") -> bool:
    try:
        greenlet_loop.call(rates.check, caller)
    except RateLimitedError:
        return True
    return False


def test_gateways_count_together(redis: Redis) -> None:
    here, there = RateLimiter("2/hour", redis.url), RateLimiter("2/hour", redis.url)
    assert [is_refused(rates) for rates in (here, there, here, there)] == [False, False, True, True]
    assert not is_refused(there, "lab")


def test_of_several_limits_the_tightest_holds(redis: Redis) -> None:
    rates = RateLimiter("100/hour;1/day", redis.url)
    assert [is_refused(rates) for _ in range(2)] == [False, True]


def test_nobody_is_refused_while_the_store_is_away(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    rates = RateLimiter("1/hour", redis.url)
    assert [is_refused(rates) for _ in range(2)] == [False, True]
    redis.stop()
    assert not any(is_refused(rates) for _ in range(100))
    # Nor is it asked for each of them.
    assert len(caplog.messages) == 1
    redis.start()
    wait_until(lambda: is_refused(rates), seconds=10)


def test_each_process_counts_for_itself_without_one() -> None:
    here, there = RateLimiter("1/hour", "memory://"), RateLimiter("1/hour", "memory://")
    assert [is_refused(rates) for rates in (here, there, here, there)] == [False, False, True, True]


def test_a_rate_comes_back() -> None:
    rates = RateLimiter("1/second", "memory://")
    assert not is_refused(rates)
    time.sleep(2)
    assert not is_refused(rates)
