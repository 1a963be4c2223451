"""`digits models promote` and `rollback`, with a model server."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from werkzeug.wrappers import Response

from digit_core.artifact import traffic
from digit_core.artifact.addresses import Addresses, recorded
from digit_core.errors import DigitError, ModelNotFoundError
from digit_core.tfserving.codec import ModelRef
from digit_core.tfserving.connection import AsyncConnection
from digit_serving.releases.cli import models
from digit_serving.releases.promotion import Releases
from tests.client.faulty_server import DIGITS, FaultyServer, prediction, problem, success
from tests.core.blocking import BlockingAsync
from tests.processes import wait_until
from tests.serving.releases.conftest import Serve, Service

FOREIGN = """# Mine.
model_config_list {{ config {{ name: "digits" base_path: "{}" model_platform: "tensorflow"
    model_version_policy {{ latest {{ num_versions: 2 }} }} }} }}"""


def models_of(name: str, **shares: float) -> Callable[[], Response]:
    """Create a gateway's descriptions of its only model."""
    document: dict[str, Any] = {"name": name, "versions": [], "labels": {}, "task": None, "models": [name]}
    document["traffic"] = shares
    return lambda: Response(json.dumps(document))


def test_promote_moves_the_label_and_unloads_nothing(service: Service) -> None:
    result = service.run("promote", 2)
    assert (result.exit_code, result.stderr) == (0, "")
    server = f"the model server at 127.0.0.1:{service.port} (DIGITS_MODEL_SERVER)"
    assert result.stdout.splitlines() == [
        f"Waiting for {server} to load version 2 ...",
        "Waiting for the service to answer label stable with version 2 ...",
        "Version 2 is stable.",
    ]
    assert service.labelled() == 2
    service.promote(3, "--version-label", "canary")
    assert (service.labelled(), service.labelled("canary")) == (2, 3)
    assert service.loaded() == {1, 2, 3}


def test_rollback_returns_to_each_previous_version(service: Service) -> None:
    for version in (2, 3):
        service.promote(version)
    assert service.run("promote", 9).exit_code == 1
    for version in (2, 1):
        result = service.run("rollback")
        assert result.stdout.endswith(f"Version {version} is stable.\n"), result.stderr
        assert service.labelled() == version
    result = service.run("rollback")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: label stable has no known earlier version; promote one: "
        "`digits models promote N --model digits --version-label stable`\n"
    )
    assert service.labelled() == 1


@pytest.mark.usefixtures("verified_by_files")
def test_promote_copied_version_verifies_and_enters_it(service: Service) -> None:
    config, copied = service.config, service.copy(4)
    # The server polls the folder every 0.05 s, and loads only what models.config names.
    time.sleep(0.2)
    assert service.loaded() == {1, 2, 3}
    variables = (copied / "variables").rename(copied.parent / "variables")
    result = service.run("promote", 4)
    assert result.exit_code == 1
    assert f"{copied} can't be served" in result.stderr
    assert (service.config, service.labelled()) == (config, 1)
    variables.rename(copied / "variables")
    service.promote(4)
    assert (service.labelled(), service.loaded()) == (4, {1, 2, 3, 4})


def test_promote_version_that_the_server_can_not_load_restores_the_file(service: Service) -> None:
    config = service.config
    broken = service.copy(4) / "saved_model.pb"
    graph = broken.read_bytes()
    broken.write_bytes(b"no protocol buffer")
    # The server refuses what the verification of `service.folder` accepts.
    lines: list[str] = []
    releases = Releases(service.folder, "digits", lines.append, service.server, timeout=20)
    with pytest.raises(Exception, match="the model server can't load version 4: Cannot parse file"):
        releases.promote(4, "stable")
    assert lines[-1] == f"Restored {service.folder.config_path}."
    assert (service.config, service.labelled()) == (config, 1)
    # The error of this attempt stays in the version's status, and must not end the next attempt. The server
    # needs a moment to read the restored file.
    time.sleep(0.3)
    broken.write_bytes(graph)
    releases.promote(4, "stable")
    assert service.labelled() == 4


def test_promote_to_server_of_another_file_fails_at_the_timeout(serve: Serve) -> None:
    service = serve(model_config_file_poll_wait_seconds=0)
    wait_until(lambda: service.loaded() == {1, 2, 3}, seconds=20)
    service.publish(4)
    config = service.config
    result = service.run("promote", 4, "--timeout", 0.5)
    name = f"the model server at 127.0.0.1:{service.port} (DIGITS_MODEL_SERVER)"
    assert f"{name} did not load version 4 (see its log) within 0.5 s" in result.stderr
    result = service.run("promote", 2, "--timeout", 2)
    assert "did not move label stable to version 2 within 2 s" in result.stderr
    assert service.config == config


def test_promote_reader_asks_the_model_server_only(service: Service) -> None:
    (service.folder.root / "digits").rename(service.folder.root / "reader")
    text = service.folder.config_path.read_text()
    service.folder.config_path.write_text(text.replace('digits"', 'reader"'))
    wait_until(lambda: has_loaded(service, "reader", 3))
    result = service.run("promote", 2, "--model", "reader", "--gateway", "http://127.0.0.1:1")
    assert result.stdout.endswith("Version 2 is stable.\n"), result.stderr


def has_loaded(service: Service, name: str, count: int) -> bool:
    with suppress(ModelNotFoundError):
        statuses = service.server.versions(ModelRef(name), timeout=5)
        return sum(status.is_available for status in statuses) == count
    return False


def test_promote_without_server_needs_offline(published: Service) -> None:
    config = published.config
    result = published.run("promote", 2)
    assert result.exit_code == 1
    assert f"the model server at 127.0.0.1:{published.port}" in result.stderr
    assert published.config == config
    for version in (2, 3):
        assert published.run("promote", version, "--offline").stdout == f"Version {version} is stable.\n"
    assert published.run("rollback", "--offline").exit_code == 0
    assert (published.config.labels("digits"), published.config.listed("digits")) == (
        {"stable": 2},
        {1, 2, 3},
    )


def test_promote_with_a_gateway_that_does_not_answer_restores_the_file(service: Service) -> None:
    config = service.config
    url = f"http://127.0.0.1:{service.port}"
    result = service.run("promote", 2, "--gateway", url, "--timeout", 1)
    assert result.exit_code == 1
    assert f"the gateway at {url} did not answer with version 2 within 1 s: " in result.stderr
    assert service.config == config
    assert service.run("promote", 2, "--gateway", "gateway").exit_code == 2


def test_promote_refused_by_the_gateway_fails_at_once(service: Service) -> None:
    before = service.folder.config_path.stat()
    with FaultyServer() as gateway:
        gateway.responses = [problem(401, "unauthorized", "Send a key.")]
        result = service.run("promote", 2, "--gateway", gateway.url, "--timeout", 600)
    assert result.exit_code == 1
    assert f"the gateway at {gateway.url} did not answer with version 2: Send a key." in result.stderr
    assert gateway.requests == 1
    # The label has not moved for a moment, either.
    assert service.folder.config_path.stat() == before


def test_promote_to_a_gateway_of_another_service_restores_the_label(service: Service) -> None:
    config = service.config
    with FaultyServer() as gateway:
        # The other gateway has a version 2, and keeps its label.
        gateway.responses = [prediction(DIGITS | {"version": 2}, [1.0] + [0.0] * 9, digit=0)] * 8 + [success]
        result = service.run("promote", 2, "--gateway", gateway.url, "--timeout", 2)
    assert f"the gateway at {gateway.url} did not answer label stable with version 2" in result.stderr
    assert (gateway.queries[0]["version"], gateway.queries[-1]["label"]) == ("2", "stable")
    assert service.config == config
    wait_until(lambda: service.labelled() == 1, seconds=10)


def test_promote_with_a_share_sets_it_until_it_is_0(published: Service) -> None:
    for share, words in (("0.1", "10 %"), ("0", "0 %")):
        canary = ("promote", 2, "--version-label", "canary", "--share", share, "--offline")
        assert published.run(*canary).stdout.splitlines() == [
            "Version 2 is canary.",
            f"It answers {words} of the requests without version and label.",
        ]
        # Another promotion leaves the share.
        assert published.run("promote", 3, "--version-label", "canary", "--offline").exit_code == 0
        line = next(line for line in published.run("ls").stdout.splitlines() if "canary" in line)
        assert ("canary 10 %" in line) == (share == "0.1")
        traffic = {"canary": 0.1} if share == "0.1" else {}
        assert json.loads(published.run("ls", "--json").stdout)["traffic"] == traffic
    assert "--share needs another" in published.run("promote", 2, "--share", 0.1, "--offline").stderr
    assert (published.config.labels("digits")["stable"], published.folder.read_traffic()) == (1, {})


def test_rollback_says_which_share_the_version_that_it_leaves_keeps(published: Service) -> None:
    published.run("promote", 2, "--version-label", "canary", "--share", 0.1, "--offline")
    assert published.run("promote", 2, "--offline").stdout == "Version 2 is stable.\n"
    first, kept = published.run("rollback", "--offline").stdout.splitlines()
    assert first == "Version 1 is stable."
    assert kept == (
        "Version 2 still answers 10 % of the requests without version and label, as canary; end that by "
        "`digits models promote 2 --model digits --version-label canary --share 0`"
    )
    _, *command = kept.split("`")[1].split()
    assert published.run(*command[1:], "--offline").exit_code == 0
    assert published.folder.read_traffic() == {}
    assert published.run("promote", 3, "--offline").stdout == "Version 3 is stable.\n"


def test_promote_with_a_share_waits_until_every_worker_of_a_gateway_has_read_it(service: Service) -> None:
    with FaultyServer() as gateway:
        answers = prediction(DIGITS | {"version": 2}, [1.0] + [0.0] * 9, digit=0)
        gateway.responses = [answers] * 16 + [models_of("digits", canary=0.1)]
        # Without its address, a gateway follows as well.
        for named in (["--gateway", gateway.url], []):
            options = ("--version-label", "canary", "--share", 0.1, *named)
            assert service.run("promote", 2, *options).exit_code == 0
            assert time.time() - service.folder.traffic_path.stat().st_mtime > traffic.READ_SECONDS


def test_promote_with_a_share_that_the_gateway_does_not_follow_restores_everything(service: Service) -> None:
    config = service.config
    service.folder.write_traffic({"digits": {"canary": 0.5}})
    with FaultyServer() as gateway:
        answers = prediction(DIGITS | {"version": 2}, [1.0] + [0.0] * 9, digit=0)
        gateway.responses = [answers] * 16 + [models_of("digits")]
        options = ("--version-label", "canary", "--share", 0.1, "--gateway", gateway.url, "--timeout", 2)
        result = service.run("promote", 2, *options)
    assert f"the gateway at {gateway.url} does not read {service.folder.traffic_path}" in result.stderr
    assert (service.config, service.folder.read_traffic()) == (config, {"digits": {"canary": 0.5}})


def test_promote_with_a_foreign_models_config_needs_force(published: Service) -> None:
    text = FOREIGN.format(published.versions)
    published.folder.config_path.write_text(text)
    result = published.run("promote", 2, "--offline")
    assert result.exit_code == 1
    assert f"Digits did not write {published.folder.config_path}" in result.stderr
    assert published.folder.config_path.read_text() == text
    assert published.run("promote", 2, "--offline", "--force").exit_code == 0
    config = published.config
    assert (config.is_ours, config.listed("digits"), config.labels("digits")) == (True, {2, 3}, {"stable": 2})


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["promote", 9], 1, "version 9 does not exist in"),
        (["promote", 1, "--models", "none"], 1, "Error: none has no model; create one with `digits train`"),
        (["promote", 1, "--version-label", "a/b", "--offline"], 1, "'a/b' is not a label"),
        (["promote", 1, "--timeout", 0], 2, "not in the range"),
    ],
)
def test_promote_invalid_arguments_changes_nothing(
    published: Service, arguments: list[Any], status: int, message: str
) -> None:
    config = published.config
    result = published.run(*arguments)
    assert result.exit_code == status
    assert message in result.stderr
    assert published.config == config


def test_concurrent_promotions_both_succeed(service: Service) -> None:
    with ThreadPoolExecutor() as pool:
        promotions = [pool.submit(service.promote, 2)]
        promotions.append(pool.submit(service.promote, 3, "--version-label", "canary"))
    assert [promotion.result() for promotion in promotions] == [None, None]
    assert (service.labelled(), service.labelled("canary")) == (2, 3)


def test_promote_interrupted_by_ctrl_c_restores_the_file(serve: Serve) -> None:
    service = serve(model_config_file_poll_wait_seconds=0)
    config = service.config

    def interrupt() -> None:
        wait_until(lambda: service.config != config, seconds=20)
        # Python drops an interrupt that arrives in a callback of C code: a person presses Ctrl-C again.
        while service.config != config:
            os.kill(os.getpid(), signal.SIGINT)
            with suppress(AssertionError):
                wait_until(lambda: service.config == config, seconds=2)

    with ThreadPoolExecutor() as pool:
        interrupted = pool.submit(interrupt)
        result = service.run("promote", 2)
    assert interrupted.result() is None
    assert (result.exit_code, result.stderr.strip()) == (1, "Aborted!")
    assert "Restored" in result.stdout
    assert service.config == config


KILLED_AT = """
import os, signal, sys
from digit_serving.releases.cli import models

left = int(sys.argv[1])

def hook(event, arguments):
    global left
    # Writes of models.config and models.changes.jsonl: the new file, its rename, and the folder's fsync.
    if event in ("open", "os.rename") and "models." in str(arguments[0]):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
models(sys.argv[2:])
"""


def run_killed(service: Service, step: int, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `digits models …`, which is killed when it opens or renames such a file for the `step`-th time."""
    command = [sys.executable, "-c", KILLED_AT, str(step), *arguments]
    return subprocess.run(command, env=os.environ | service.environment, capture_output=True, text=True)


@pytest.mark.slow
def test_promote_killed_at_each_file_keeps_the_label_served(service: Service) -> None:
    """Kills each promotion when it opens or renames a file of the models folder, one after another."""
    status, step = -9, 0
    while status == -9:
        step += 1
        service.promote(1)
        service.promote(2)
        done = run_killed(service, step, "promote", "3")
        status = done.returncode
        current = service.config.labels("digits")["stable"]
        assert current in {2, 3}
        assert answers_for_a_while(service)
        assert service.run("ls").exit_code == 0
        # The next command finds a consistent folder: what the rollback returns to is known.
        assert service.folder.previous("digits", "stable", current) is not None
    assert (status, done.stderr) == (0, "")
    assert step > 8
    assert service.labelled() == 3


@pytest.mark.slow
def test_rollback_killed_at_each_file_and_repeated_never_returns_to_what_it_left(published: Service) -> None:
    status, step = -9, 0
    while status == -9:
        step += 1
        published.promote(1, "--offline")
        published.promote(2, "--offline")
        status = run_killed(published, step, "rollback", "--offline").returncode
        published.run("rollback", "--offline")
        assert published.config.labels("digits") == {"stable": 1}
    assert status == 0
    assert step > 5


def answers_for_a_while(service: Service) -> bool:
    """True if no call for the label fails in 0.3 s, more time than the server needs to read the file."""
    images, end = np.zeros((1, 28, 28), np.uint8), time.monotonic() + 0.3
    with BlockingAsync(AsyncConnection, f"127.0.0.1:{service.port}") as server:
        try:
            served = server.served(ModelRef("digits", version_label="stable"), deadline=end + 10)
            while time.monotonic() < end:
                server.predict(images, served, deadline=end + 10)
        except DigitError:
            return False
    return True


def test_prune_unloads_and_removes_what_no_label_needs(service: Service) -> None:
    for version in (4, 5, 6):
        service.publish(version)
    # 6 is the newest, 2 is stable, and 3 was stable before.
    for version in (3, 2):
        service.promote(version)
    service.copy(0)
    (service.versions / ".removing-0").mkdir()
    result = service.run("prune", "--keep", 1)
    assert (result.exit_code, result.stderr) == (0, "")
    waiting, *removed, kept = result.stdout.splitlines()
    assert waiting.startswith("Waiting for the model server at 127.0.0.1:")
    assert waiting.endswith(" to unload the versions to be removed ...")
    assert [line.rpartition(" (")[0] for line in removed] == [
        f"Removed {service.versions / version}" for version in ("0", "1", "4", "5")
    ]
    assert kept == "Kept 2, 3, 6."
    assert list(service.folder.versions("digits")) == [6, 3, 2]
    assert service.config.listed("digits") == {2, 3, 6}
    wait_until(lambda: service.loaded() == {2, 3, 6}, seconds=20)
    assert not (service.versions / ".removing-0").exists()
    assert service.labelled() == 2
    assert service.run("rollback").exit_code == 0
    assert service.labelled() == 3


def test_prune_that_is_refused_keeps_every_version(published: Service) -> None:
    config = published.config
    result = published.run("prune", "--keep", 1, "--timeout", 0.5)
    assert result.exit_code == 1
    assert "the model server at" in result.stderr
    assert published.run("prune", "--keep", 0).exit_code == 2
    assert list(published.folder.versions("digits")) == [3, 2, 1]
    assert published.config == config


def test_remove_unloads_a_model_and_keeps_the_others(service: Service) -> None:
    shutil.copytree(service.versions, service.folder.root / "shapes")
    with service.folder.lock():
        service.folder.enter(service.config, service.folder.version("shapes", 1))
    service.folder.set_default("digits")
    wait_until(lambda: has_loaded(service, "shapes", 1))
    refused = service.run("remove", "digits", "--yes")
    assert refused.exit_code == 1
    assert "let another one do so first: `digits models default NAME`" in refused.stderr
    assert_default_stays(service, "shapes")
    waiting, removed = service.run("remove", "shapes", "--yes").stdout.splitlines()
    assert waiting.endswith(" (DIGITS_MODEL_SERVER) to unload shapes ...")
    assert removed == "Removed shapes. The folder now has digits."
    assert not has_loaded(service, "shapes", 1)
    assert (service.folder.names(), [*service.config.base_paths]) == (["digits"], ["digits"])
    assert service.labelled() == 1
    assert service.run("remove", "shapes", "--yes").exit_code == 1


def assert_default_stays(service: Service, name: str) -> None:
    """Check that the model can't be removed where it answers by another setting than models.default."""

    def refusal(*options: str, **environment: str) -> str:
        command = ["remove", name, "--yes", *options]
        result = CliRunner().invoke(models, command, env=service.environment | environment)
        assert result.exit_code == 1
        return result.stderr.strip().rpartition("first: ")[2]

    variable = "another DIGITS_MODEL_NAME"
    assert refusal(DIGITS_MODEL_NAME=name) == f"set {variable}"
    assert refusal("--offline", DIGITS_MODEL_NAME=name) == f"set {variable}"
    with recorded(service.folder.root, Addresses("http://127.0.0.1:1", "127.0.0.1:1", name)):
        assert refusal() == f"start `digits up` with {variable}"
    with FaultyServer() as gateway:
        gateway.responses = [models_of(name)]
        assert refusal("--gateway", gateway.url) == f"start the gateway at {gateway.url} with {variable}"
        gateway.responses = [problem(401, "unauthorized", "Send a key.")]
        assert "does not name its default: Send a key." in refusal("--gateway", gateway.url)
    assert has_loaded(service, name, 1)
