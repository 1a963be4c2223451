"""`digits models promote` and `rollback`, with a model server."""

import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from digit_client import DigitError
from digit_client.tfserving.codec import ModelRef
from digit_serving.releases.promotion import Promoter
from digit_serving.releases.versions import find_model
from tests.processes import wait_until
from tests.serving.releases.conftest import Serve, Service


def publish_broken(models: Path, version: int) -> None:
    """Publish a version that no server can load."""
    (models / str(version)).mkdir()
    (models / str(version) / "saved_model.pb").write_bytes(b"no protocol buffer")


def test_promote_loads_the_version_before_it_moves_the_label(service: Service) -> None:
    assert service.loaded() == {3}
    result = service.run("promote", 1)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "Waiting for the model server to load version 1 ...",
        "Waiting for the model server to move label stable to version 1 ...",
        "Version 1 is stable.",
    ]
    assert service.labelled() == 1
    # Versions without a label are unloaded: a call without a version or label gets the newest one loaded.
    wait_until(lambda: service.loaded() == {1}, seconds=10)
    service.promote(2, "--label", "canary")
    assert (service.labelled(), service.labelled("canary")) == (1, 2)
    wait_until(lambda: service.loaded() == {1, 2}, seconds=10)


def test_rollback_returns_to_each_previous_version(service: Service) -> None:
    for version in (1, 2, 3):
        service.promote(version)
    for version in (2, 1):
        result = service.run("rollback")
        assert result.stdout.endswith(f"Version {version} is stable.\n"), result.stderr
        assert service.labelled() == version
    result = service.run("rollback")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: label stable has no previous version\n"
    assert service.labelled() == 1


def test_promote_fails_no_call_for_the_label(service: Service) -> None:
    service.promote(1)
    server, stop = service.server, threading.Event()
    answers: list[int] = []
    images = np.zeros((1, 28, 28), np.uint8)

    def keep_predicting() -> None:
        while not stop.is_set():
            answers.extend(
                prediction.model_version
                for prediction in server.predict(images, ModelRef("digits", label="stable"), timeout=10)
            )
            time.sleep(0.002)

    thread = threading.Thread(target=keep_predicting)
    thread.start()
    for version in (2, 3):
        service.promote(version)
    wait_until(lambda: service.loaded() == {3}, seconds=10)
    alive = thread.is_alive()
    stop.set()
    thread.join()
    assert alive, "a call failed"
    assert answers == sorted(answers)
    assert set(answers) == {1, 2, 3}


def test_promote_version_that_does_not_load_restores_the_file(service: Service) -> None:
    service.promote(2)
    publish_broken(service.models, 4)
    text = service.config.read_text()
    result = service.run("promote", 4)
    assert result.exit_code == 1
    assert "Error: the model server can't load version 4: Cannot parse file" in result.stderr
    assert f"Restored {service.config.path}." in result.stdout
    assert service.config.read_text() == text
    assert service.labelled() == 2
    # The error of this attempt stays in the version's status, and must not end the next attempt. The server
    # needs a moment to read the restored file.
    time.sleep(1)
    shutil.rmtree(service.models / "4")
    service.publish(4)
    service.promote(4)
    assert service.labelled() == 4


def test_promote_to_server_of_another_file_fails_at_the_timeout(serve: Serve) -> None:
    service = serve(model_config_file_poll_wait_seconds=0)
    text = service.config.read_text()
    result = service.run("promote", 2, "--timeout", 0.5)
    assert result.exit_code == 1
    assert "the model server did not load version 2 (see its log) within 0.5 s" in result.stderr
    # The server has loaded version 3, the newest, but without the label.
    result = service.run("promote", 3, "--timeout", 0.5)
    assert "did not move label stable to version 3 within 0.5 s" in result.stderr
    assert service.config.read_text() == text


def test_promote_without_server_needs_offline(published: Service) -> None:
    text = published.config.read_text()
    result = published.run("promote", 2)
    assert result.exit_code == 1
    assert f"the model server at 127.0.0.1:{published.port}" in result.stderr
    assert published.config.read_text() == text
    for version in (2, 3):
        assert published.run("promote", version, "--offline").stdout == f"Version {version} is stable.\n"
    assert published.run("rollback", "--offline").exit_code == 0
    config = published.config.read()
    assert (config.labels("digits"), config.versions_to_load("digits", [1, 2, 3])) == ({"stable": 2}, {2})


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["promote", 9], 1, "version 9 does not exist in"),
        (["promote", 1, "--models", "none"], 1, "Error: none has no model; create one with `digits train`"),
        (["promote", 1, "--label", "a/b"], 1, "'a/b' is not a label"),
        (["promote", "newest"], 2, "not a valid integer"),
        (["promote"], 2, "Missing argument 'N'"),
        (["promote", 1, "--timeout", 0], 2, "not in the range"),
    ],
)
def test_promote_invalid_arguments_changes_nothing(
    published: Service, arguments: list[Any], status: int, message: str
) -> None:
    text = published.config.read_text()
    result = published.run(*arguments)
    assert result.exit_code == status
    assert message in result.stderr
    assert published.config.read_text() == text


def test_concurrent_promotions_both_succeed(service: Service) -> None:
    def promote(version: int, label: str) -> None:
        Promoter(find_model(service.models, None), service.server, 60, lambda _: None).promote(version, label)

    threads = [
        threading.Thread(target=promote, args=arguments) for arguments in ((1, "stable"), (2, "canary"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (service.labelled(), service.labelled("canary")) == (1, 2)


def test_promote_interrupted_by_ctrl_c_restores_the_file(serve: Serve) -> None:
    service = serve(model_config_file_poll_wait_seconds=0)
    text = service.config.read_text()
    process = service.start("promote", 2)
    wait_until(lambda: service.config.read_text() != text)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "Restored" in out
    assert service.config.read_text() == text


@pytest.mark.slow
def test_promote_killed_at_any_step_keeps_label_served(service: Service) -> None:
    """Kills each promotion after a different number of progress lines and of seconds."""
    service.promote(1)
    for number in range(6):
        process = service.start("promote", 2 + number % 2)
        assert process.stdout
        for _ in range(number % 3):
            process.stdout.readline()
        time.sleep(0.06 * number)
        process.kill()
        process.communicate()
        assert service.config.read().labels("digits")["stable"] in (1, 2, 3)
        assert answers_for_a_while(service)
    service.promote(1)
    assert service.labelled() == 1
    wait_until(lambda: service.loaded() == {1}, seconds=10)


def answers_for_a_while(service: Service) -> bool:
    """True if no call for the label fails in 1.2 s, more time than the server needs to read the file."""
    images, server = np.zeros((1, 28, 28), np.uint8), service.server
    end = time.monotonic() + 1.2
    try:
        while time.monotonic() < end:
            server.predict(images, ModelRef("digits", label="stable"), timeout=10)
    except DigitError:
        return False
    return True
