"""Kubernetes commands of the documentation, run with fakes of kubectl, kind and docker."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from digit_serving.model_server.config import read
from tests.kustomize import COMPONENTS, built, containers, copy_k8s, kustomize, named, pods
from tests.readme import TEXT, blocks

RECORDER = '#!/bin/sh\necho "$(basename "$0") $*" >>"$CALLS"\n'
KINDS = {"job": "Job", "cronjob": "CronJob", "deployment": "Deployment", "service": "Service"}
# Objects that commands of the documentation create; KubeRay gives a RayJob a Job of the same name.
CREATED = {("Job", "publish"), ("Job", "score")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which the tests run the blocks of commands in order, as a reader would."""
    folder = tmp_path_factory.mktemp("readme")
    copy_k8s(folder)
    for program in ("kubectl", "kind", "docker"):
        path = folder / "bin" / program
        path.parent.mkdir(exist_ok=True)
        path.write_text(RECORDER)
        path.chmod(0o755)
    return folder


def recorded_calls(block: str, folder: Path) -> list[str]:
    """Run a block of commands; return the calls of the fake programs."""
    calls = folder / "calls"
    calls.write_text("")
    # Only the block gets the fake programs: kustomize() runs the real kubectl. Python's folder has `digits`.
    path = f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-c", block], cwd=folder, env={**os.environ, "PATH": path, "CALLS": str(calls)}
    )
    assert done.returncode == 0
    return calls.read_text().splitlines()


@pytest.mark.parametrize("block", blocks("bash"))
def test_commands_name_existing_objects(block: str, folder: Path) -> None:
    known = {(item["kind"], item["metadata"]["name"]) for item in built("production+retrain")} | CREATED
    for call in recorded_calls(block, folder):
        if applied := re.fullmatch(r"kubectl apply -k (\S+)", call):
            assert kustomize(folder / applied[1])
        for kind, name in re.findall(rf"({'|'.join(KINDS)})/(\S+)", call):
            assert (KINDS[kind], name) in known
        if forwarded := re.search(r"service/gateway \d+:(\d+)", call):
            gateway = named(built("local"), "Service", "gateway")["spec"]
            assert int(forwarded[1]) in {port["port"] for port in gateway["ports"]}


def test_local_cluster_commands_load_all_local_images(folder: Path) -> None:
    (block,) = [block for block in blocks("bash") if "kind load" in block]
    calls = recorded_calls(block, folder)
    loaded = {call.split()[-1] for call in calls if call.startswith("kind load docker-image ")}
    used = {container["image"] for template in pods(built("local")) for container in containers(template)}
    assert loaded == {image for image in used if image.startswith("digits-")}
    tagged = {call.split()[-1] for call in calls if call.startswith("docker tag ")}
    assert tagged == loaded


def test_components_are_all_documented() -> None:
    assert set(COMPONENTS) <= set(re.findall(r"`([a-z-]+)`", TEXT))


def test_tls_commands_make_certificates_that_both_sides_accept(folder: Path) -> None:
    (block,) = [block for block in blocks("bash") if "ssl.config" in block]
    recorded_calls(block, folder)
    config = read(str(folder / "ssl.config"), "SSLConfig")
    assert config.client_verify
    pair = (config.server_key.encode(), config.server_cert.encode())
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_secure_port(
        "127.0.0.1:0", grpc.ssl_server_credentials([pair], config.custom_ca.encode(), config.client_verify)
    )
    server.start()
    files = (folder / name for name in ("ca.crt", "gateway.key", "gateway.crt"))
    credentials = grpc.ssl_channel_credentials(*(file.read_bytes() for file in files))
    # Name of the gateways' target.
    name = [("grpc.ssl_target_name_override", "model-server-grpc")]
    try:
        with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options=name) as channel:
            grpc.channel_ready_future(channel).result(timeout=30)
    finally:
        server.stop(0)
