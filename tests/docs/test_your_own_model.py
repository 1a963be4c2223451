"""Commands and code of docs/tutorials/your-own-model.md, run in a copy of docs beside the service."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from digit_client import Client, TaskCard
from tests.processes import free_port, is_ready, running, wait_until
from tests.readme import ROOT, blocks

pytestmark = pytest.mark.e2e

TUTORIAL = (ROOT / "docs" / "tutorials" / "your-own-model.md").read_text()
GUIDE = (ROOT / "docs" / "how-to" / "bring-a-model.md").read_text()
FIT, PUBLISH, ASK, LEARN = blocks("sh", TUTORIAL)
PREDICT, GIVE_FEEDBACK = blocks("python", TUTORIAL)


@dataclass(frozen=True)
class Copy:
    """Folder with docs and .venv, whose service has ports of its own."""

    folder: Path
    environment: dict[str, str]

    def run(self, *command: str) -> str:
        """Run a command that has to succeed; return its output."""
        done = subprocess.run(
            command, cwd=self.folder, env=os.environ | self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def with_ports(self, text: str) -> str:
        """Return the text with the gateway's address of this copy."""
        return text.replace("http://localhost:8080", self.environment["DIGITS_URL"])


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    folder = tmp_path_factory.mktemp("tutorial")
    for name, target in (("docs", ROOT / "docs"), (".venv", Path(sys.prefix))):
        (folder / name).symlink_to(target)
    port, grpc_port = free_port(), free_port()
    environment = {
        "DIGITS_PORT": str(port),
        "DIGITS_GRPC_PORT": str(grpc_port),
        "DIGITS_REST_PORT": str(free_port()),
        "DIGITS_MODELS": str(folder / "models"),
        "DIGITS_MODEL_SERVER": f"127.0.0.1:{grpc_port}",
        "DIGITS_URL": f"http://127.0.0.1:{port}",
        "DIGITS_FEEDBACK": f"sqlite:///{folder / 'feedback.db'}",
        "DIGITS_FEEDBACK_OPEN": "1",
    }
    return Copy(folder, environment)


@pytest.fixture(scope="module")
def service(copy: Copy) -> Iterator[Copy]:
    """The copy, after the commands that fit and publish, with its service."""
    copy.run("bash", "-e", "-c", FIT)
    assert "models/shapes/1" in copy.run("bash", "-e", "-c", PUBLISH)
    with running("up", environment=copy.environment) as process:
        wait_until(lambda: is_ready(copy.environment["DIGITS_URL"]), process)
        yield copy


def test_tutorial_commands_name_the_star(service: Copy) -> None:
    answer = service.run("bash", "-e", "-c", service.with_ports(ASK))
    assert answer.startswith("shapes/validation/star/000.jpg: star")
    assert '"label":"star"' in answer


def test_tutorial_code_names_the_star(service: Copy) -> None:
    printed = service.run(sys.executable, "-W", "error", "-c", service.with_ports(PREDICT))
    assert printed.startswith("star ")


def test_card_request_over_rest_returns_the_card(service: Copy) -> None:
    (command,) = (line for line in GUIDE.splitlines() if line.startswith("curl --data"))
    command = command.replace("localhost:8501", f"localhost:{service.environment['DIGITS_REST_PORT']}")
    assert '\\"circle\\"' in service.run("bash", "-e", "-c", command)


def test_complete_card_is_valid() -> None:
    (complete,) = blocks('toml title="flowers.toml"', GUIDE)
    document = tomllib.loads(complete)
    # The published card leaves it out: what is published answers probabilities.
    assert document.pop("output") == "logits"
    card = TaskCard.from_document(document)
    assert (card.name, card.shape, card.range, card.fit) == ("flowers", (180, 180, 3), (0, 255), "stretch")


def test_corrected_outlines_are_right_in_the_next_version(service: Copy) -> None:
    def share_right() -> float:
        with Client(service.environment["DIGITS_URL"], model="shapes") as client:
            paths = [*(service.folder / "shapes" / "sent").glob("*/*.jpg")]
            return sum(client.predict(path).label == path.parent.name for path in paths) / len(paths)

    assert share_right() < 0.8
    service.run(sys.executable, "-W", "error", "-c", service.with_ports(GIVE_FEEDBACK))
    assert "Version 2 is stable.\n" in service.run("bash", "-e", "-c", LEARN)
    assert share_right() > 0.9
