"""Services of docker-compose.yml as an isolated project."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


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
