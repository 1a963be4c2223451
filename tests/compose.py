"""Services of docker-compose.yml as an isolated project, and continuous calls to them."""

import os
import subprocess
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Generic, Self, TypeVar

ROOT = Path(__file__).parent.parent

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Project:
    """Compose project that shares only images with other projects on this machine."""

    name: str
    port: int
    settings: dict[str, str]
    folder: Path = ROOT

    @property
    def url(self) -> str:
        """URL of the gateway."""
        return f"http://localhost:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Environment in which `docker compose` addresses this project."""
        return {
            **os.environ,
            "COMPOSE_PROJECT_NAME": self.name,
            "DIGITS_PORT": str(self.port),
            **self.settings,
        }

    def compose(self, *arguments: str, **settings: str) -> str:
        """Run `docker compose …` with `settings` as further variables; return its output."""
        return self.run("docker", "compose", *arguments, **settings)

    def run(self, *command: str, **settings: str) -> str:
        """Run a command that has to succeed; return its output."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**self.environment, **settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        printed = done.stdout.decode()
        assert done.returncode == 0, f"{' '.join(command)}\n{printed}"
        return printed


@dataclass
class Load(Generic[_Result]):
    """Repeats a call in threads until the end of the block, and keeps the results.

    The end of the block raises the error of a failed call: it comes before a wait for results that ended.
    """

    call: Callable[[], _Result]
    callers: int = 4
    results: list[_Result] = field(default_factory=list)
    _stop: Event = field(default_factory=Event)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(32))
    _workers: list[Future[None]] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._workers = [self._pool.submit(self._work) for _ in range(self.callers)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._pool.shutdown()
        for worker in self._workers:
            worker.result()

    def _work(self) -> None:
        # Pause: leave CPU time to the services under test.
        while not self._stop.wait(0.02):
            self.results.append(self.call())
