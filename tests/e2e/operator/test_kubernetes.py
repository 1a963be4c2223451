"""Workloads of the chart on Podman, with the drop-in in place of TensorFlow Serving.

CI's job `kubernetes` publishes in a cluster, too.
"""

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from digit_client import Client
from digit_core.images import to_png
from tests.manifests import (
    Object,
    containers,
    job_from,
    merge,
    named,
    overlay_values,
    pod,
    render,
    training_job,
)
from tests.podman_cluster import PodmanCluster
from tests.processes import DIGITS, require_running, run
from tests.readme import ROOT, blocks

pytestmark = pytest.mark.containers

IMAGES = ("digits-gateway", "digits-training", "digits-model-server")
DROP_IN = {"images": {"modelServer": "digits-model-server:0.2.0"}}
LOCAL = merge(overlay_values("local"), DROP_IN)
CANARY = {"gateway": {"traffic": {"digits": {"canary": 0.3}}}}
# Containerfile of the documentation, on a base that is here.
(MODEL_IMAGE,) = re.findall(r"models <<< '\n(FROM .*?)'", "".join(blocks("bash")), re.DOTALL)


def image_id(tool: str, image: str) -> str:
    """Return the ID of an image, or an empty string."""
    command = [tool, "image", "inspect", "--format", "{{.Id}}", f"{image}:0.2.0"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.stdout.strip().removeprefix("sha256:")


@pytest.fixture(scope="module")
def cluster() -> Iterator[PodmanCluster]:
    require_running("docker", "podman")
    run("docker", "compose", "--profile", "drop-in", "build", cwd=ROOT)
    for image in IMAGES:
        run("docker", "tag", image, f"{image}:0.2.0")
        if image_id("docker", image) != image_id("podman", image):
            run("podman", "pull", "--quiet", f"docker-daemon:{image}:0.2.0")
    cluster = PodmanCluster("digits-tests")
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def objects() -> list[Object]:
    """Objects of the overlay `local` with the drop-in."""
    return render(LOCAL)


@pytest.fixture(scope="module")
def workloads(cluster: PodmanCluster, objects: list[Object]) -> dict[str, Object]:
    """Training job, which has published a model, and both services, which are ready."""
    workloads = {name: named(objects, "Deployment", name) for name in ("gateway", "model-server")}
    workloads["training"] = training_job(objects)
    for name in ("gateway", "training", "model-server"):
        if name == "model-server":
            # No model is published yet.
            assert not cluster.probe_succeeds(workloads["gateway"], "readinessProbe")
            assert not (cluster.volume("models") / "models.config").exists()
        # The model server's init container ends when models.config exists.
        cluster.play(workloads[name], objects)
    assert (cluster.volume("models") / "models.config").exists()
    cluster.wait_for_job(workloads["training"])
    for name in ("model-server", "gateway"):
        cluster.wait_until_ready(workloads[name])
    return workloads


def count_versions(
    cluster: PodmanCluster, objects: list[Object], image: bytes, requests: int
) -> Counter[int]:
    """Return how many of `requests` each version answers."""
    url = f"http://{cluster.address(named(objects, 'Deployment', 'gateway'))}:8080"
    with Client(url) as client:
        return Counter(client.predict(image).model_version for _ in range(requests))


def deploy(cluster: PodmanCluster, objects: list[Object], *names: str) -> None:
    """Deploy services, and wait until they are ready."""
    for name in names:
        cluster.play(named(objects, "Deployment", name), objects)
    for name in names:
        cluster.wait_until_ready(named(objects, "Deployment", name))


def run_release_job(cluster: PodmanCluster, objects: list[Object], command: str = "rollback") -> str:
    """Run a Job that the CronJob `rollback` makes, with another command; return its output."""
    job = job_from(named(objects, "CronJob", "rollback"), "release")
    (container,) = containers(pod(job))
    # No Service maps port 80 to the gateways' on Podman.
    variables = {"COMMAND": command, "DIGITS_URL": "http://gateway:8080"}
    for entry in container["env"]:
        if entry["name"] in variables:
            entry["value"] = variables[entry["name"]]
    cluster.play(job, objects)
    return cluster.wait_for_job(job)


def test_release_jobs_move_labels_without_a_restart(
    cluster: PodmanCluster, workloads: dict[str, Object], digits: Any
) -> None:
    objects, models, seven = render(merge(DROP_IN, CANARY)), cluster.volume("models"), to_png(digits.one(7))
    # The Job's image has no TensorFlow, with which a publication verifies.
    shutil.copytree(models / "digits" / "1", models / "digits" / "2")
    run(*DIGITS, "models", "verify", "2", "--models", str(models))
    deploy(cluster, objects, "model-server", "gateway")
    # A published version is not served before its promotion.
    assert count_versions(cluster, objects, seven, 20) == {1: 20}
    run_release_job(cluster, objects, "promote 2 --version-label canary")
    shares = count_versions(cluster, objects, seven, 100)
    assert 10 <= shares[2] <= 60
    assert shares[1] == 100 - shares[2]
    assert "Version 2 is stable." in run_release_job(cluster, objects, "promote 2")
    assert count_versions(cluster, objects, seven, 20) == {2: 20}
    assert "Version 1 is stable." in run_release_job(cluster, objects)
    assert count_versions(cluster, objects, seven, 20)[1] >= 8


def test_model_image_is_served_without_volume(
    cluster: PodmanCluster, workloads: dict[str, Object], digits: Any
) -> None:
    containerfile = MODEL_IMAGE.replace("busybox:1.37", "digits-gateway:0.2.0").encode()
    build_image = ["docker", "build", "--tag", "digits-model:1", "--file", "-", str(cluster.volume("models"))]
    subprocess.run(build_image, input=containerfile, check=True, capture_output=True)
    run("podman", "pull", "--quiet", "docker-daemon:digits-model:1")
    for mounted in (True, False):
        objects = render(merge(LOCAL, {"models": {"source": "image", "image": {"mounted": mounted}}}))
        deploy(cluster, objects, "model-server", "gateway")
        assert count_versions(cluster, objects, to_png(digits.one(7)), 5) == {1: 5}
