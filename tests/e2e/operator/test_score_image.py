"""Image of the nodes of a Ray cluster, run as KubeRay runs `docs/examples/score_with_ray.yaml`."""

import json
from collections.abc import Iterator
from functools import partial

import pytest

from tests.manifests import K8S, Object, ray_pods
from tests.processes import answers, require_running, run, wait_until

pytestmark = pytest.mark.containers

# Restrictions of the pods in k8s/.
RESTRICTED = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges")
# Command that KubeRay makes of the head's rayStartParams.
START_HEAD = "ray start --head --block --dashboard-host=0.0.0.0 --dashboard-agent-listen-port=52365"


docker = partial(run, "docker")


@pytest.fixture(scope="module")
def image() -> str:
    require_running("docker")
    dockerfile = K8S.parent / "serving" / "Dockerfile"
    docker("build", "--tag=digits-score", f"--file={dockerfile}", "--target=score", str(K8S.parent))
    return "digits-score"


@pytest.fixture
def head_container(image: str) -> Iterator[str]:
    """ID of a container with the head of a Ray cluster."""
    options = ("--detach", *RESTRICTED, "--shm-size=2g", "--memory=4g")
    container = docker("run", *options, image, "bash", "-c", START_HEAD).strip()
    try:
        yield container
    finally:
        docker("rm", "--force", container)


def probe_url(container: Object, kind: str, address: str) -> str:
    """Return the URL that a pod's HTTP probe of this kind asks for."""
    probe = container[kind]["httpGet"]
    (port,) = [port["containerPort"] for port in container["ports"] if port["name"] == probe["port"]]
    return f"http://{address}:{port}{probe['path']}"


def test_image_as_head_passes_probes_and_takes_job(head_container: str) -> None:
    (inspected,) = json.loads(docker("inspect", head_container))
    (network,) = inspected["NetworkSettings"]["Networks"].values()
    _, head, _ = ray_pods()
    (container,) = head["spec"]["containers"]
    for kind in ("readinessProbe", "livenessProbe"):
        wait_until(partial(answers, probe_url(container, kind, network["IPAddress"])))
    submit = "ray job submit --address http://127.0.0.1:8265 -- digits score --help"
    assert "--ray" in docker("exec", head_container, "bash", "-c", submit)
