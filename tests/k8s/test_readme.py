"""Kubernetes commands of the documentation, run with fakes of kubectl, helm, kind and docker."""

import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import kubernetes_validate
import pytest
import yaml

from digit_serving.model_server.config import read
from tests.commands import fake_digits, parse
from tests.manifests import (
    OVERLAYS,
    RAY_JOB,
    VERSIONS,
    Object,
    component,
    containers,
    environment,
    job_from,
    named,
    of_kind,
    overlay,
    pod,
    pods,
    policies,
    ray_pods,
    render,
)
from tests.readme import ROOT, blocks

RECORDER = '#!/bin/sh\necho "$(basename "$0") $*" >>"$CALLS"\n'
RUNBOOK = ROOT / "docs" / "how-to" / "runbook.md"
KINDS = {"job": "Job", "cronjob": "CronJob", "deployment": "Deployment", "service": "Service"}
# Jobs that commands of the documentation create; KubeRay gives a RayJob a Job of the same name.
CREATED = {("Job", name) for name in ("publish", "promote-2", "rollback", "restore", "score")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which the tests run the blocks of commands in order, as a reader would."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "models.tar").touch()
    for program in ("kubectl", "helm", "kind", "docker"):
        path = folder / "bin" / program
        path.parent.mkdir(exist_ok=True)
        path.write_text(RECORDER)
        path.chmod(0o755)
    return folder


def recorded_calls(block: str, folder: Path) -> list[list[str]]:
    """Run a block of commands; return the calls of the fake programs, each as its words."""
    calls = folder / "calls"
    calls.write_text("")
    # Python's folder has `digits`.
    path = f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-c", block], cwd=folder, env={**os.environ, "PATH": path, "CALLS": str(calls)}
    )
    assert done.returncode == 0
    return [shlex.split(line) for line in calls.read_text().splitlines()]


@pytest.mark.parametrize("block", blocks("bash"))
def test_commands_name_existing_objects(block: str, folder: Path) -> None:
    known = {(item["kind"], item["metadata"]["name"]) for item in overlay("production")} | CREATED
    for program, *words in recorded_calls(block, folder):
        if program != "kubectl":
            continue
        if words[:2] == ["apply", "-k"] or words[:1] == ["kustomize"]:
            assert Path(words[-1]).name in OVERLAYS
            assert (ROOT / words[-1] / "kustomization.yaml").exists()
        elif words[2:4] == ["apply", "-f"] and words[4] != "-":
            assert (ROOT / words[4]).exists()
        for kind, name in re.findall(rf"\b({'|'.join(KINDS)})/(\S+)", " ".join(words)):
            assert (KINDS[kind], name) in known
        if "port-forward" in words:
            ports = named(overlay("local"), "Service", "gateway")["spec"]["ports"]
            assert int(words[-1].partition(":")[2]) in {port["port"] for port in ports}


@pytest.mark.slow
def test_helm_command_installs_the_documented_values(folder: Path) -> None:
    (block,) = [block for block in blocks("bash") if "helm upgrade" in block]
    (folder / "keys").unlink(missing_ok=True)
    ((*_, chart, _, namespace, _, values),) = [
        call for call in recorded_calls(block, folder) if call[0] == "helm"
    ]
    assert (chart, namespace) == ("k8s/chart", "digits")
    objects = render(yaml.safe_load((folder / values).read_text()))
    (gateway,) = containers(pod(named(objects, "Deployment", "gateway")))
    assert re.search(r"@sha256:\w{64}$", gateway["image"])
    secrets = re.findall(r"create secret generic (\S+)", block)
    assert secrets == ["releases", "gateway-keys", "feedback"]


def test_local_cluster_commands_load_all_local_images(folder: Path) -> None:
    block, drop_in = (block for block in blocks("bash") if "kind load" in block)
    used = {container["image"] for template in pods(overlay("local")) for container in containers(template)}
    for commands, expected in (
        (block, {image for image in used if image.startswith("digits-")}),
        (drop_in, {"digits-model-server:0.2.0"}),
    ):
        calls = recorded_calls(commands, folder)
        assert {call[-1] for call in calls if call[0] == "kind"} == expected
        assert {call[-1] for call in calls if call[:2] == ["docker", "tag"]} == expected
    # The drop-in replaces every image that has no build for ARM.
    (replaced,) = re.findall(r"sed s,(\S+?),", drop_in)
    assert {image for image in used if not image.startswith("digits-")} == {replaced}


def changed_container(change: str, job: Object) -> Object:
    """Return the container of the Job after the documentation's command `kubectl CHANGE --local`."""
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed; Debian's package kubectl has it")
    (command,) = re.findall(rf"kubectl {change} --local.*?(?= \|\n)", "".join(blocks("bash")), re.DOTALL)
    done = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "USER": "ann"},
        input=yaml.safe_dump(job),
        capture_output=True,
        text=True,
        check=True,
    )
    (container,) = containers(pod(yaml.safe_load(done.stdout)))
    return container


@pytest.mark.parametrize(
    "block",
    [
        block
        for block in blocks("bash") + blocks("bash", RUNBOOK.read_text())
        if "logs" in block and "create job" in block
    ],
)
def test_log_of_a_job_is_followed_from_the_start_of_its_container(block: str, folder: Path) -> None:
    # kubectl logs fails while the container is created; `wait` for `complete` misses that a Job has failed.
    kubectl = folder / "bin" / "kubectl"
    recorder = kubectl.read_text()
    kubectl.write_text(f'{recorder}case "$*" in *logs*) [ "$(grep -c logs "$CALLS")" = 3 ];; esac\n')
    try:
        calls = [call for call in recorded_calls(block, folder) if call[0] == "kubectl"]
    finally:
        kubectl.write_text(recorder)
    assert [call[3] for call in calls if "logs" in call] == ["logs"] * 3
    assert not any("--for=condition=complete" in call for call in calls)


def test_restore_command_makes_the_training_pod_wait() -> None:
    job = job_from(named(overlay("local"), "CronJob", "training"), "restore")
    assert changed_container("patch", job)["command"] == ["sleep", "600"]


def test_releases_job_rolls_back_or_runs_the_command_that_is_set(tmp_path: Path) -> None:
    job = job_from(named(overlay("local"), "CronJob", "rollback"), "promote-2")
    (rollback,) = containers(pod(job))
    promotion = changed_container("set env", job)
    assert environment(promotion, overlay("local"))["DIGITS_USER"] == "ann"
    for container, line in ((rollback, "models rollback\n"), (promotion, "models promote 2\n")):
        variables = environment(container, overlay("local")) | fake_digits(tmp_path)
        assert subprocess.check_output(container["command"], env=variables, text=True) == line


def test_ray_job_has_valid_pods_and_command_and_may_call_the_model_servers() -> None:
    for version in VERSIONS:
        for policy in RAY_JOB[1:]:
            kubernetes_validate.validate(policy, version, strict=True)
        for template in ray_pods():
            kubernetes_validate.validate(
                {"apiVersion": "v1", "kind": "PodTemplate", "template": template}, version, strict=True
            )
    assert RAY_JOB[0]["spec"]["shutdownAfterJobFinishes"]
    assert RAY_JOB[0]["spec"]["activeDeadlineSeconds"]
    training = pod(of_kind(overlay("local"), "Job")[0])["spec"]
    for template in ray_pods():
        (container,) = containers(template)
        assert container["securityContext"] == containers({"spec": training})[0]["securityContext"]
        assert template["spec"]["securityContext"]["runAsNonRoot"]
        assert template["spec"]["automountServiceAccountToken"] is False
        assert len(policies(template["metadata"]["labels"], list(RAY_JOB[1:]))) == 1
    program, *arguments = shlex.split(RAY_JOB[0]["spec"]["entrypoint"])
    assert program == "digits"
    connection = named(overlay("local"), "ConfigMap", "model-server-connection")["data"]
    assert parse(arguments)["target"] == connection["DIGITS_MODEL_SERVER"]
    (policy,) = policies(
        pod(named(overlay("local"), "Deployment", "model-server"))["metadata"]["labels"], list(RAY_JOB[1:])
    )
    (rule,) = policy["ingress"]
    assert rule["ports"] == [{"port": 8500}]
    (caller,) = rule["from"]
    for template in ray_pods():
        assert caller["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        assert component(template) == "score"
    pinned = re.search(r"^ray==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    assert RAY_JOB[0]["spec"]["rayClusterSpec"]["rayVersion"] == pinned[1]


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


def test_tls_commands_make_a_certificate_of_the_gateways_that_the_images_python_accepts(folder: Path) -> None:
    for block in (block for block in blocks("bash") if "-CA ca.crt" in block):
        recorded_calls(block, folder)
    caller = ssl.create_default_context(cafile=folder / "ca.crt")
    # The default of Python 3.13, which the image has.
    caller.verify_flags |= ssl.VERIFY_X509_STRICT
    gateway = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    gateway.load_cert_chain(folder / "server.crt", folder / "server.key")
    with ThreadPoolExecutor(1) as thread:
        for name in ("gateway", "digits.example.org"):
            ours, theirs = socket.socketpair()
            accepted = thread.submit(gateway.wrap_socket, theirs, server_side=True)
            with caller.wrap_socket(ours, server_hostname=name), accepted.result():
                pass
