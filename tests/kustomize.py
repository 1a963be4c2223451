"""Kubernetes objects of k8s/, as `kubectl apply -k` would send them."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

K8S = Path(__file__).parent.parent / "k8s"
OVERLAYS = sorted(folder.name for folder in (K8S / "overlays").iterdir())
COMPONENTS = sorted(folder.name for folder in (K8S / "components").iterdir())
# Components that a large installation has together, in an order that suits them.
STACK = (
    *("feedback", "retrain", "redis", "api-keys", "monitoring", "keda", "gateway-api", "ingress"),
    *("canary", "shadow", "score", "model-server-tls", "image-pull-secrets"),
)

TRAINING = "training-0-1-0"
"""Name of the training job, which has the version: Jobs are immutable."""

Object = dict[str, Any]


def build(overlay: str, *components: str, k8s: Path = K8S, **fields: Any) -> list[Object]:
    """Return the objects of an overlay with components and further kustomization fields added."""
    with TemporaryDirectory() as name:
        folder = Path(name).resolve()
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            # Kustomize refuses absolute paths.
            "resources": [os.path.relpath(k8s.resolve() / "overlays" / overlay, folder)],
            "components": [
                os.path.relpath(k8s.resolve() / "components" / component, folder) for component in components
            ],
            **fields,
        }
        (folder / "kustomization.yaml").write_text(json.dumps(kustomization))
        return kustomize(folder)


def copy_k8s(folder: Path) -> Path:
    """Copy k8s/ and the configuration that it uses into a folder; return the copy of k8s/."""
    shutil.copytree(K8S, folder / "k8s")
    shutil.copytree(K8S.parent / "serving" / "config", folder / "serving" / "config")
    return folder / "k8s"


def kustomize(folder: Path) -> list[Object]:
    """Return the objects of a kustomization. Skip the test without kubectl."""
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed; Debian's package kubectl has it")
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True)
    # Deprecation warnings become errors in a later version of kubectl.
    assert (done.returncode, done.stderr) == (0, "")
    return list(yaml.safe_load_all(done.stdout))


@cache
def built(name: str) -> tuple[Object, ...]:
    """Return the objects of "overlay" or "overlay+component". The result is cached: don't change it."""
    return tuple(build(*name.split("+")))


def every_build() -> list[str]:
    """Return the names of all overlays, of production with each component, and of production with a stack."""
    return [
        *OVERLAYS,
        *(f"production+{component}" for component in COMPONENTS),
        "+".join(("production", *STACK)),
    ]


def of_kind(objects: Sequence[Object], *kinds: str) -> list[Object]:
    """Return the objects of these kinds."""
    return [item for item in objects if item["kind"] in kinds]


def named(objects: Sequence[Object], kind: str, name: str) -> Object:
    """Return the only object of this kind and name."""
    (found,) = [item for item in of_kind(objects, kind) if item["metadata"]["name"] == name]
    return found


def pod(workload: Object) -> Object:
    """Return a workload's pod template."""
    spec = workload["spec"]
    template: Object = spec["jobTemplate"]["spec"]["template"] if "jobTemplate" in spec else spec["template"]
    return template


def ray_pods(job: Object) -> list[Object]:
    """Return the pod templates of a RayJob: submitter, head and worker groups."""
    cluster = job["spec"]["rayClusterSpec"]
    nodes = (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
    return [job["spec"]["submitterPodTemplate"], *(node["template"] for node in nodes)]


def pods(objects: Sequence[Object]) -> list[Object]:
    """Return the pod templates of all workloads."""
    workloads = of_kind(objects, "Deployment", "Job", "CronJob")
    ray_jobs = of_kind(objects, "RayJob")
    return [*map(pod, workloads), *chain.from_iterable(map(ray_pods, ray_jobs))]


def containers(template: Object) -> list[Object]:
    """Return the containers of a pod template, init containers first."""
    spec = template["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]
