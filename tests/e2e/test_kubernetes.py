"""The workloads of k8s/ with Podman in place of a cluster: `make test-containers`.

The drop-in takes the place of TensorFlow Serving.
"""

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import httpx
import pytest

from digit_client import DigitClient, RetryPolicy
from digit_client.images import to_png
from tests.kubelet import Kubelet
from tests.kustomize import Object, build, copied, named, pod
from tests.processes import wait_until
from tests.readme import blocks

pytestmark = pytest.mark.containers

ROOT = Path(__file__).parent.parent.parent
IMAGES = ("digits-gateway", "digits-training", "digits-model-server")
# A short fit makes it quick.
QUICK = {
    "target": {"kind": "Job"},
    "patch": json.dumps(
        [{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--epochs=4"}]
    ),
}
# The page's commands that promote a version and take that back.
EDITS = re.findall(r"^sed .*", "\n".join(blocks("bash")), re.MULTILINE)
# The images are those of this machine.
OURS = [{"name": f"registry.example.com/{image}", "newName": image} for image in IMAGES]


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


def calls(kubelet: Kubelet, server: Object) -> int:
    """How many requests a model server has answered, probes included."""
    page = httpx.get(f"http://{kubelet.address(server)}:8501/monitoring/prometheus/metrics").text
    return sum(int(float(count)) for count in re.findall(r'request_count{.*status="OK".*} (\S+)', page))


def test_a_second_model_server_gets_its_share_and_is_not_missed(
    kubelet: Kubelet, workloads: dict[str, Object], objects: list[Object], digits: Any
) -> None:
    servers = [workloads["model-server"], deepcopy(workloads["model-server"])]
    servers[1]["metadata"]["name"] = "another"
    kubelet.play(servers[1], objects)
    kubelet.wait_until_ready(servers[1])
    seven = to_png(digits.one(7))
    with DigitClient(gateway(kubelet, workloads), retries=RetryPolicy(attempts=1)) as client:

        def is_asked() -> bool:
            client.predict(seven)
            return calls(kubelet, servers[1]) > unasked

        unasked = calls(kubelet, servers[1])
        wait_until(is_asked)
        before = [calls(kubelet, server) for server in servers]
        for _ in range(100):
            client.predict(seven)
        after = [calls(kubelet, server) for server in servers]
        assert all(40 <= end - start <= 60 for start, end in zip(before, after, strict=True))
        kubelet.kill(servers[1])
        assert {client.predict(seven).digit for _ in range(100)} == {7}


def published(kubelet: Kubelet, objects: list[Object]) -> str:
    """What `kubectl create job --from=cronjob/retrain` prints."""
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "publish"},
        "spec": deepcopy(named(objects, "CronJob", "retrain")["spec"]["jobTemplate"]["spec"]),
    }
    pod(job)["spec"]["containers"][0]["args"] = ["--epochs=4", "--seed=1"]
    kubelet.play(job, objects)
    return kubelet.finished(job)


def answering(kubelet: Kubelet, objects: list[Object], image: bytes, requests: int) -> Counter[int]:
    """How many of so many requests each version answers, once these services are what runs."""
    for name in ("model-server", "gateway"):
        kubelet.play(named(objects, "Deployment", name), objects)
    for name in ("model-server", "gateway"):
        kubelet.wait_until_ready(named(objects, "Deployment", name))
    url = f"http://{kubelet.address(named(objects, 'Deployment', 'gateway'))}:8080"
    with DigitClient(url) as client:
        return Counter(client.predict(image).model_version for _ in range(requests))


def test_a_version_is_published_tried_promoted_and_taken_back(
    kubelet: Kubelet, workloads: dict[str, Object], digits: Any, tmp_path: Path
) -> None:
    seven = to_png(digits.one(7))
    production = build("production", "drop-in", images=OURS)
    assert "Published: models/digits/2" in published(kubelet, production)
    # What is published is not yet served.
    assert answering(kubelet, production, seven, 50) == {1: 50}
    shares = answering(kubelet, build("canary", "drop-in", images=OURS), seven, 400)
    assert 2 <= shares[2] <= 50
    assert shares[1] == 400 - shares[2]

    k8s = copied(tmp_path)
    for command, version in zip(EDITS, (2, 1), strict=True):
        subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
        objects = build("production", "drop-in", k8s=k8s, images=OURS)
        assert answering(kubelet, objects, seven, 50) == {version: 50}
    assert objects == production


def test_a_model_served_from_an_image_needs_no_volume(
    kubelet: Kubelet, workloads: dict[str, Object], digits: Any
) -> None:
    versions = kubelet.volume("models")
    kubelet.build("digits-model:1", "FROM digits-gateway:0.1.0\nCOPY digits/1 /digits/1", versions)
    for component in ("model-image", "model-image-copied"):
        objects = build("local", "drop-in", component)
        assert answering(kubelet, objects, to_png(digits.one(7)), 5) == {1: 5}
