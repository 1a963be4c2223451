"""Store of feedback in the worker processes of one gateway."""

import os
import signal
import sqlite3
from contextlib import closing

import httpx
import pytest

from tests.processes import children, gateway_process, wait_until
from tests.serving.gateway.stub_model_server import StubModelServer

HANGS = ["The store of DIGITS_FEEDBACK can't be used: there is no feedback."]


@pytest.mark.e2e
def test_readyz_of_all_workers_warns_of_a_store_that_hangs_for_one(
    stub: StubModelServer, sqlite_url: str
) -> None:
    def warnings() -> list[list[str]]:
        """Return what new connections are told: eight reach both workers."""
        answers = [httpx.get(f"{gateway.url}/readyz") for _ in range(8)]
        return [answer.json().get("warnings", []) for answer in answers]

    with (
        gateway_process(stub.target, workers=2, feedback=sqlite_url, feedback_open=True) as gateway,
        closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)) as other,
    ):
        wait_until(lambda: warnings() == [[]] * 8)
        other.execute("BEGIN IMMEDIATE")
        # Only one worker sees that the store hangs.
        stopped, _ = children(gateway.process.pid)
        os.kill(stopped, signal.SIGSTOP)
        wait_until(lambda: warnings() == [HANGS] * 8, seconds=10)
        os.kill(stopped, signal.SIGCONT)
        assert warnings() == [HANGS] * 8
        other.execute("ROLLBACK")
        wait_until(lambda: warnings() == [[]] * 8, seconds=10)
