"""Rate limits per caller, counted in memory and in a real Redis."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from digit_serving.gateway.errors import RateLimitedError
from digit_serving.gateway.rate_limit import RateLimiter
from digit_serving.sockets import network
from tests import greenlet_loop
from tests.processes import accepts, free_port, wait_until
from tests.serving.gateway.helpers import StartGateway, assert_problem


class Redis:
    """Redis server without persistence, on a port of its own."""

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


def is_refused(limiter: RateLimiter, caller: str = "shop") -> bool:
    try:
        greenlet_loop.call(limiter.check, caller)
    except RateLimitedError:
        return True
    return False


@pytest.mark.parametrize(
    ("address", "caller"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("not:an:address", "not:an:address"),
        (None, "unknown"),
    ],
)
def test_network_is_what_one_customer_has(address: str | None, caller: str) -> None:
    assert network(address) == caller


def test_request_beyond_limit_gets_429(start_gateway: StartGateway) -> None:
    http = start_gateway(rate_limit="3/hour")
    *answers, last = [http.get("/v1/models") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert assert_problem(last, 429, "rate_limited")["detail"] == "Rate limit exceeded: 3 per 1 hour."
    assert 1 <= int(last.headers["Retry-After"]) <= 3600
    assert http.get("/livez").status_code == 200


@pytest.mark.parametrize(
    ("proxies", "forwarded", "statuses"),
    [
        # Without trusted proxies X-Forwarded-For is ignored: any caller can set it.
        (0, ("192.0.2.1", "192.0.2.2"), [200, 429]),
        (1, ("192.0.2.1", "192.0.2.2"), [200, 200]),
        (1, ("192.0.2.8, 192.0.2.1", "192.0.2.9, 192.0.2.1"), [200, 429]),
        (2, ("192.0.2.8, 192.0.2.1", "192.0.2.9, 192.0.2.1"), [200, 200]),
        (1, ("2001:db8::1", "2001:db8::2"), [200, 429]),
    ],
)
def test_caller_behind_trusted_proxies_is_address_before_them(
    start_gateway: StartGateway,
    proxies: int,
    forwarded: tuple[str, str],
    statuses: list[int],
) -> None:
    http = start_gateway(rate_limit="1/hour", trusted_proxies=proxies)
    answers = [http.get("/v1/models", headers={"X-Forwarded-For": value}) for value in forwarded]
    assert [answer.status_code for answer in answers] == statuses


def test_redis_store_counts_for_all_limiters_together(redis: Redis) -> None:
    limiters = RateLimiter("100/hour;2/day", redis.url), RateLimiter("100/hour;2/day", redis.url)
    refused = [is_refused(limiter) for limiter in (*limiters, *limiters)]
    assert refused == [False, False, True, True]
    assert not is_refused(limiters[1], "lab")


def test_unreachable_store_refuses_no_request(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    failures: list[float] = []
    limiter = RateLimiter("1/hour", redis.url, lambda: failures.append(time.monotonic()))
    assert [is_refused(limiter) for _ in range(2)] == [False, True]
    assert not failures
    redis.stop()
    assert not any(is_refused(limiter) for _ in range(100))
    assert failures
    assert len(caplog.messages) == 1
    assert not greenlet_loop.call(limiter.is_reachable)
    redis.start()
    wait_until(lambda: greenlet_loop.call(limiter.is_reachable), seconds=10)
    assert caplog.messages[1:] == ["rate limits apply again"]
    # The counts were in the server's memory.
    assert [is_refused(limiter) for _ in range(2)] == [False, True]


def test_readyz_with_unreachable_store_warns(start_gateway: StartGateway) -> None:
    http = start_gateway(rate_limit="1/hour", rate_limit_store=f"redis://127.0.0.1:{free_port()}")
    warning = "The store of DIGITS_RATE_LIMIT_STORE does not answer, so no rate limits apply."
    assert http.get("/readyz").get_json()["warnings"] == [warning]
    assert [http.get("/v1/models").status_code for _ in range(2)] == [200, 200]
