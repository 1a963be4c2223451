"""`digits models promote` and `rollback`, with a model server that serves."""

import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from digit_client import DigitError
from digit_client.tfserving.codec import ModelRef
from tests.processes import wait_until
from tests.serving.releases.conftest import Serve, Service

POLLING = "--model_config_file_poll_wait_seconds=1"


def broken(models: Path, version: int) -> None:
    """A version that no server can load."""
    (models / str(version)).mkdir()
    (models / str(version) / "saved_model.pb").write_bytes(b"no protocol buffer")


def test_a_version_is_loaded_before_it_gets_the_label(service: Service) -> None:
    assert service.loaded() == {3}
    done = service.run("promote", 1)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "Waiting for the model server to load version 1 ...",
        "Waiting for it to answer for stable with version 1 ...",
        "Version 1 is stable.",
    ]
    assert service.labelled() == 1
    # What has no label goes, so that nobody gets it who names no version.
    wait_until(lambda: service.loaded() == {1}, seconds=10)
    assert service.run("promote", 2, "--label", "canary").returncode == 0
    assert (service.labelled(), service.labelled("canary")) == (1, 2)
    wait_until(lambda: service.loaded() == {1, 2}, seconds=10)


def test_rollback_returns_to_the_versions_before(service: Service) -> None:
    for version in (1, 2, 3):
        assert service.run("promote", version).returncode == 0
    for version in (2, 1):
        assert service.run("rollback").stdout.endswith(f"Version {version} is stable.\n")
        assert service.labelled() == version
    done = service.run("rollback")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: nothing is known of a version that was stable before\n"
    assert service.labelled() == 1


def test_no_call_fails_while_the_label_moves(service: Service) -> None:
    service.run("promote", 1)
    server, over = service.server, threading.Event()
    answers: list[int] = []
    images = np.zeros((1, 28, 28), np.uint8)

    def ask() -> None:
        while not over.is_set():
            answers.extend(
                prediction.model_version
                for prediction in server.predict(images, ModelRef(label="stable"), timeout=10)
            )

    thread = threading.Thread(target=ask)
    thread.start()
    for version in (2, 3):
        assert service.run("promote", version).returncode == 0
    wait_until(lambda: service.loaded() == {3}, seconds=10)
    alive = thread.is_alive()
    over.set()
    thread.join()
    assert alive, "a call failed"
    assert answers == sorted(answers)
    assert set(answers) == {1, 2, 3}


def test_a_version_that_does_not_load_is_taken_back(service: Service) -> None:
    service.run("promote", 2)
    broken(service.models, 4)
    text = service.config.text()
    done = service.run("promote", 4)
    assert done.returncode == 1
    assert "Error: the model server can't load version 4: Read less bytes than requested" in done.stderr
    assert f"Taken back: {service.config.path} is as it was." in done.stdout
    assert service.config.text() == text
    assert service.labelled() == 2
    # Once the server has read that, what the try left behind is not taken for the outcome of the next one.
    time.sleep(1.5)
    (service.models / "4" / "saved_model.pb").unlink()
    (service.models / "4").rmdir()
    service.add(4)
    assert service.run("promote", 4).returncode == 0
    assert service.labelled() == 4


def test_a_server_that_reads_another_file_is_told(serve: Serve) -> None:
    service = serve()
    text = service.config.text()
    done = service.run("promote", 2, "--timeout", 2)
    assert done.returncode == 1
    assert "did not load version 2" in done.stderr
    assert "within 2 s" in done.stderr
    # The newest is loaded anyhow.
    done = service.run("promote", 3, "--timeout", 2)
    assert "did not make version 3 stable within 2 s" in done.stderr
    assert service.config.text() == text


def test_without_a_server_nothing_changes_but_offline(published: Service) -> None:
    text = published.config.text()
    done = published.run("promote", 2)
    assert done.returncode == 1
    assert f"the model server at 127.0.0.1:{published.port}" in done.stderr
    assert published.config.text() == text
    for version in (2, 3):
        assert published.run("promote", version, "--offline").stdout == f"Version {version} is stable.\n"
    assert published.run("rollback", "--offline").returncode == 0
    config = published.config.read()
    assert (config.labels, config.wanted([1, 2, 3])) == ({"stable": 2}, {2})


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (["promote", 9], 1, "there is no version 9 in"),
        (["promote", 1, "--label", "a/b"], 1, "'a/b' is no label"),
        (["promote", "newest"], 2, "not a valid integer"),
        (["promote"], 2, "Missing argument 'N'"),
        (["promote", 1, "--timeout", 0], 2, "not in the range"),
    ],
)
def test_mistakes_are_told(published: Service, arguments: list[Any], status: int, complaint: str) -> None:
    text = published.config.text()
    done = published.run(*arguments)
    assert done.returncode == status
    assert complaint in done.stderr
    assert published.config.text() == text


def test_two_at_once_both_get_their_label(service: Service) -> None:
    both = [service.start("promote", 1), service.start("promote", 2, "--label", "canary")]
    assert [process.wait(60) for process in both] == [0, 0]
    for process in both:
        process.communicate()
    assert (service.labelled(), service.labelled("canary")) == (1, 2)


def test_ctrl_c_takes_it_back(serve: Serve) -> None:
    service = serve()
    text = service.config.text()
    process = service.start("promote", 2)
    wait_until(lambda: service.config.text() != text)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "Taken back" in out
    assert service.config.text() == text


def test_the_service_goes_on_wherever_a_promotion_is_killed(service: Service) -> None:
    """It takes about two seconds, most of which it waits for the server."""
    service.run("promote", 1)
    for number in range(5):
        process = service.start("promote", 2 + number % 2)
        time.sleep(0.3 + 0.4 * number)
        process.kill()
        process.communicate()
        assert service.config.read().labels["stable"] in (1, 2, 3)
        assert answers(service)
    assert service.run("promote", 1).returncode == 0
    assert service.labelled() == 1
    wait_until(lambda: service.loaded() == {1}, seconds=10)


def answers(service: Service) -> bool:
    """Whether calls for the label are answered for longer than the file needs to be read."""
    images = np.zeros((1, 28, 28), np.uint8)
    end = time.monotonic() + 1.2
    try:
        while time.monotonic() < end:
            service.server.predict(images, ModelRef(label="stable"), timeout=10)
    except DigitError:
        return False
    return True
