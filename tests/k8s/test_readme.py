"""The pages' commands for a cluster, run with stand-ins that only note how they were called."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.kustomize import COMPONENTS, Object, built, containers, copied, kustomize, pods
from tests.readme import TEXT, blocks

STAND_IN = '#!/bin/sh\necho "$(basename "$0") $*" >>"$CALLS"\n'
KINDS = {"job": "Job", "cronjob": "CronJob", "deployment": "Deployment", "service": "Service"}
# They are made by commands.
MADE = {("Job", "publish")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands are run, one block after the other, as their reader would."""
    folder = tmp_path_factory.mktemp("readme")
    copied(folder)
    for program in ("kubectl", "kind", "docker"):
        path = folder / "bin" / program
        path.parent.mkdir(exist_ok=True)
        path.write_text(STAND_IN)
        path.chmod(0o755)
    return folder


def called(block: str, folder: Path) -> list[str]:
    """The calls of the stand-ins that a block makes."""
    calls = folder / "calls"
    calls.write_text("")
    # Real kubectl builds what is applied, further down.
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-c", block], cwd=folder, env={**os.environ, "PATH": path, "CALLS": str(calls)}
    )
    assert done.returncode == 0
    return calls.read_text().splitlines()


@pytest.mark.parametrize("block", blocks("bash"))
def test_commands_are_about_what_there_is(block: str, folder: Path) -> None:
    known = {(each["kind"], each["metadata"]["name"]) for each in built("production")} | MADE
    for call in called(block, folder):
        if applied := re.fullmatch(r"kubectl apply -k (\S+)", call):
            assert kustomize(folder / applied[1])
        for kind, name in re.findall(rf"({'|'.join(KINDS)})/(\S+)", call):
            assert (KINDS[kind], name) in known
        if forwarded := re.search(r"service/gateway \d+:(\d+)", call):
            assert int(forwarded[1]) in ports(built("local"))


def ports(objects: tuple[Object, ...]) -> set[int]:
    (gateway,) = [
        each for each in objects if (each["kind"], each["metadata"]["name"]) == ("Service", "gateway")
    ]
    return {port["port"] for port in gateway["spec"]["ports"]}


def test_the_laptops_cluster_gets_every_image_that_no_registry_has(folder: Path) -> None:
    calls = called(blocks("bash")[0], folder)
    loaded = {call.split()[-1] for call in calls if call.startswith("kind load docker-image ")}
    used = {one["image"] for each in pods(built("local")) for one in containers(each)}
    assert loaded == {image for image in used if image.startswith("digits-")}
    tagged = {call.split()[-1] for call in calls if call.startswith("docker tag ")}
    assert tagged == loaded


def test_every_component_is_told() -> None:
    assert set(COMPONENTS) <= set(re.findall(r"`([a-z-]+)`", TEXT))
