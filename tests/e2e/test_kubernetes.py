"""The workloads of k8s/ with Podman in place of a cluster: `make test-containers`.

The drop-in takes the place of TensorFlow Serving.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from digit_client import DigitClient
from digit_client.arrays import to_png
from tests.kubelet import Kubelet
from tests.kustomize import Object, build, named
from tests.processes import wait_until

pytestmark = pytest.mark.containers

ROOT = Path(__file__).parent.parent.parent
IMAGES = ("digits-gateway", "digits-training", "digits-model-server")
# A short fit makes it quick.
QUICK = {
    "target": {"kind": "Job|CronJob"},
    "patch": json.dumps(
        [{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--epochs=4"}]
    ),
}


def run(*command: str) -> None:
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def identity(tool: str, image: str) -> str:
    """Of an image, empty where the tool doesn't have it."""
    command = [tool, "image", "inspect", "--format", "{{.Id}}", f"{image}:0.1.0"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.stdout.strip().removeprefix("sha256:")


@pytest.fixture(scope="module")
def kubelet() -> Iterator[Kubelet]:
    for tool in ("docker", "podman"):
        if not shutil.which(tool) or subprocess.run([tool, "info"], capture_output=True).returncode:
            pytest.skip(f"{tool} does not run here")
    run("docker", "compose", "--profile", "drop-in", "build")
    for image in IMAGES:
        run("docker", "tag", image, f"{image}:0.1.0")
        if identity("docker", image) != identity("podman", image):
            run("podman", "pull", "--quiet", f"docker-daemon:{image}:0.1.0")
    kubelet = Kubelet("digits-tests")
    kubelet.start()
    try:
        yield kubelet
    finally:
        kubelet.stop()


@pytest.fixture(scope="module")
def objects() -> list[Object]:
    """What `kubectl apply -k k8s/overlays/local` sends, with the drop-in."""
    return build("local", "drop-in", patches=[QUICK])


@pytest.fixture(scope="module")
def workloads(kubelet: Kubelet, objects: list[Object]) -> dict[str, Object]:
    """The training job and both services; a model has been published, and all is ready."""
    keys = {"model-server": "Deployment", "gateway": "Deployment", "training": "Job"}
    workloads = {name: named(objects, kind, name) for name, kind in keys.items()}
    for workload in workloads.values():
        kubelet.play(workload, objects)
    # Nothing is there to serve yet.
    assert not kubelet.holds(workloads["model-server"], "startupProbe")
    wait_until(lambda: kubelet.holds(workloads["gateway"], "livenessProbe"))
    assert not kubelet.holds(workloads["gateway"], "readinessProbe")
    assert "Published: models/digits/1" in kubelet.finished(workloads["training"])
    for name in ("model-server", "gateway"):
        kubelet.wait_until_ready(workloads[name])
    return workloads


def gateway(kubelet: Kubelet, workloads: dict[str, Object]) -> str:
    return f"http://{kubelet.address(workloads['gateway'])}:8080"


def test_applied_from_nothing_it_trains_serves_and_answers_right(
    kubelet: Kubelet, workloads: dict[str, Object], digits: Any
) -> None:
    with DigitClient(gateway(kubelet, workloads)) as client:
        answers = client.predict_many(to_png(digits.one(digit)) for digit in range(10))
    assert sum(answer.digit == digit for digit, answer in enumerate(answers)) >= 9


@pytest.mark.parametrize("service", ["gateway", "model-server"])
def test_a_service_runs_without_rights(kubelet: Kubelet, workloads: dict[str, Object], service: str) -> None:
    script = "id -u; touch /opt/digits/x 2>&1; grep -hE 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status"
    user, refusal, *status = kubelet.execute(workloads[service], "sh", "-c", script).splitlines()
    assert user == "1000"
    assert "Read-only file system" in refusal
    assert {line.split()[0]: int(line.split()[1], 16) for line in status} == {
        "CapEff:": 0,
        "NoNewPrivs:": 1,
        "Seccomp:": 2,
    }


def test_the_model_server_only_reads_models_and_writes_what_is_passing(
    kubelet: Kubelet, workloads: dict[str, Object]
) -> None:
    script = "touch /tmp/x && touch /models/x 2>&1; touch /config/x 2>&1; ls /var/run/secrets 2>&1"
    refusals = kubelet.execute(workloads["model-server"], "sh", "-c", f"{script}; true").splitlines()
    assert ["Read-only" in line for line in refusals[:2]] == [True, True]
    assert "serviceaccount" not in refusals[2:]


def test_the_report_of_the_training_is_kept(kubelet: Kubelet, workloads: dict[str, Object]) -> None:
    assert list(kubelet.volume("models").glob("runs/*/report.html"))
