"""Kubernetes objects of k8s/: those that the overlays check in, and those of any values of the chart."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

K8S = Path(__file__).parent.parent / "k8s"
OVERLAYS = sorted(path.parent.name for path in K8S.glob("overlays/*/kustomization.yaml"))

# Kubernetes of Debian's kubectl, the first with image volumes by default, and the newest.
VERSIONS = ["1.32", "1.35", "1.37"]
RAY_JOB = tuple(yaml.safe_load_all((K8S.parent / "docs" / "examples" / "score_with_ray.yaml").read_text()))

Object = dict[str, Any]


def merge(values: Mapping[str, Any], *others: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with those of others over them, key by key, as Helm merges several files."""
    merged = dict(values)
    for other in others:
        for key, value in other.items():
            old = merged.get(key)
            merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


@cache
def defaults() -> dict[str, Any]:
    """Return the chart's values. The result is cached: don't change it."""
    values: dict[str, Any] = yaml.safe_load((K8S / "chart" / "values.yaml").read_text())
    return values


def overlay_values(name: str) -> dict[str, Any]:
    """Return the values of an overlay, without the chart's."""
    values: dict[str, Any] = yaml.safe_load((K8S / "overlays" / name / "values.yaml").read_text())
    return values


@cache
def overlay(name: str) -> tuple[Object, ...]:
    """Return the objects of an overlay. The result is cached: don't change it."""
    return tuple(yaml.safe_load_all((K8S / "overlays" / name / "objects.yaml").read_text()))


def render(values: Mapping[str, Any]) -> list[Object]:
    """Return the objects that Helm's engine makes of the values. Skip the test without the engine."""
    pytest.importorskip("helm_python", reason="helm-python-sdk is not installed: make .venv/installed-chart")
    from k8s.render import render as rendered

    return list(yaml.safe_load_all(rendered(dict(values))))


def templates(values: Mapping[str, Any], name: str = "digits", namespace: str = "digits") -> dict[str, str]:
    """Return what Helm's engine makes of each template. Skip the test without the engine."""
    helm = pytest.importorskip("helm_python")
    with helm.Chart.load(K8S / "chart") as chart:
        texts: dict[str, str] = chart.render(dict(values), name=name, namespace=namespace)
    return texts


def notes(values: Mapping[str, Any]) -> str:
    """Return what Helm prints after it has installed the chart with the values."""
    return templates(values)["digits/templates/NOTES.txt"]


def of_kind(objects: Sequence[Object], *kinds: str) -> list[Object]:
    """Return the objects of these kinds."""
    return [item for item in objects if item["kind"] in kinds]


def named(objects: Sequence[Object], kind: str, name: str) -> Object:
    """Return the only object of this kind and name."""
    (found,) = [item for item in of_kind(objects, kind) if item["metadata"]["name"] == name]
    return found


def training_job(objects: Sequence[Object]) -> Object:
    """Return the job that trains the first version; its name has a hash."""
    (job,) = of_kind(objects, "Job")
    return job


def job_from(cronjob: Object, name: str) -> Object:
    """Return the Job that `kubectl create job NAME --from=cronjob/…` makes."""
    spec = deepcopy(cronjob["spec"]["jobTemplate"]["spec"])
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


def pod(workload: Object) -> Object:
    """Return a workload's pod template."""
    spec = workload["spec"]
    template: Object = spec["jobTemplate"]["spec"]["template"] if "jobTemplate" in spec else spec["template"]
    return template


def pods(objects: Sequence[Object]) -> list[Object]:
    """Return the pod templates of all workloads."""
    return [pod(workload) for workload in of_kind(objects, "Deployment", "Job", "CronJob")]


def component(template: Object) -> str:
    """Return the component that a pod belongs to."""
    name: str = template["metadata"]["labels"]["app.kubernetes.io/component"]
    return name


def containers(template: Object) -> list[Object]:
    """Return the containers of a pod template, init containers first."""
    spec = template["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def environment(container: Object, objects: Sequence[Object]) -> dict[str, str]:
    """Return the variables of a container; those from a Secret are empty."""
    variables: dict[str, str] = {}
    for source in container.get("envFrom", []):
        if "configMapRef" in source:
            variables |= named(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
    return variables | {entry["name"]: entry.get("value", "") for entry in container.get("env", [])}


def policies(labels: dict[str, str], objects: list[Object]) -> list[Any]:
    """Return the specifications of the network policies that select a pod."""
    specs = [policy["spec"] for policy in of_kind(objects, "NetworkPolicy")]
    return [spec for spec in specs if spec["podSelector"]["matchLabels"].items() <= labels.items()]


def ray_pods() -> list[Any]:
    """Return the pod templates of the documentation's RayJob: submitter, head and workers."""
    spec = RAY_JOB[0]["spec"]
    (workers,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    head = spec["rayClusterSpec"]["headGroupSpec"]
    return [spec["submitterPodTemplate"], head["template"], workers["template"]]
