"""Every overlay and component builds to objects that Kubernetes knows, field for field."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from tests.kustomize import (
    COMPONENTS,
    K8S,
    OVERLAYS,
    build,
    built,
    copy_k8s,
    every_build,
    kustomize,
    named,
    of_kind,
    pods,
)

# Kubernetes of Debian's kubectl, the first with image volumes by default, and the newest.
VERSIONS = ["1.32", "1.35", "1.37"]


def fields(**properties: Any) -> dict[str, Any]:
    """Return the JSON schema of an object that has these fields and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


ANYTHING: dict[str, Any] = {}
INTEGER = {"type": "integer"}
BOOLEAN = {"type": "boolean"}
STRING = {"type": "string"}
STRINGS = {"type": "object", "additionalProperties": STRING}
# Specifications of the custom resources, as far as k8s/ uses them. Pod templates have a test of their own.
CUSTOM_RESOURCES = {
    "ServiceMonitor": fields(jobLabel=STRING, targetLabels=ANYTHING, selector=ANYTHING, endpoints=ANYTHING),
    "PrometheusRule": fields(groups=ANYTHING),
    "HTTPRoute": fields(parentRefs=ANYTHING, hostnames=ANYTHING, rules=ANYTHING),
    "ScaledObject": fields(
        scaleTargetRef=fields(name=STRING),
        minReplicaCount=INTEGER,
        maxReplicaCount=INTEGER,
        advanced=fields(horizontalPodAutoscalerConfig=fields(name=STRING, behavior=ANYTHING)),
        triggers={
            "type": "array",
            "items": {
                "oneOf": [
                    fields(type={"const": "cpu"}, metricType=STRING, metadata=fields(value=STRING)),
                    fields(
                        type={"const": "prometheus"},
                        metadata=fields(serverAddress=STRING, query=STRING, threshold=STRING),
                    ),
                ]
            },
        },
    ),
    "RayJob": fields(
        entrypoint=STRING,
        backoffLimit=INTEGER,
        activeDeadlineSeconds=INTEGER,
        shutdownAfterJobFinishes=BOOLEAN,
        ttlSecondsAfterFinished=INTEGER,
        submitterPodTemplate=ANYTHING,
        rayClusterSpec=fields(
            rayVersion=STRING,
            headGroupSpec=fields(rayStartParams=STRINGS, template=ANYTHING),
            workerGroupSpecs={
                "type": "array",
                "items": fields(
                    groupName=STRING,
                    replicas=INTEGER,
                    minReplicas=INTEGER,
                    maxReplicas=INTEGER,
                    rayStartParams=STRINGS,
                    template=ANYTHING,
                ),
            },
        ),
    ),
}


@cache
def validate(document: str, version: str) -> None:
    """Validate an object in JSON; cached, since most objects are the same in many builds."""
    kubernetes_validate.validate(json.loads(document), version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", every_build())
def test_object_matches_schema(name: str, version: str) -> None:
    for item in built(name):
        if item["kind"] in CUSTOM_RESOURCES:
            jsonschema.validate(item["spec"], CUSTOM_RESOURCES[item["kind"]])
        else:
            validate(json.dumps(item), version)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", every_build())
def test_pod_template_matches_schema(name: str, version: str) -> None:
    for template in pods(built(name)):
        document = {"apiVersion": "v1", "kind": "PodTemplate", "template": template}
        validate(json.dumps(document), version)


def test_schema_unknown_field_is_refused() -> None:
    service: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "x"},
        "spec": {"prots": []},
    }
    for version in VERSIONS:
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(service, version, strict=True)


@pytest.mark.parametrize("name", every_build())
def test_objects_are_in_namespace_and_unique(name: str) -> None:
    objects = built(name)
    for item in objects:
        assert item["kind"] == "Namespace" or item["metadata"]["namespace"] == "digits"
    keys = [(item["kind"], item["metadata"]["name"]) for item in objects]
    assert len(keys) == len(set(keys))
    # kubectl applies the objects in order: the namespace must exist before the objects in it.
    assert objects[0]["kind"] == "Namespace"


def test_namespace_enforces_restricted_standard() -> None:
    labels = named(built("local"), "Namespace", "digits")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_base_builds_alone() -> None:
    assert kustomize(K8S / "base")


def test_kustomizations_are_all_covered() -> None:
    folders = {path.parent for path in K8S.rglob("kustomization.yaml")}
    assert folders == {K8S / "base", K8S / "labels"} | {K8S / "overlays" / name for name in OVERLAYS} | {
        K8S / "components" / name for name in COMPONENTS
    }


def test_configuration_change_renames_config_map_and_rolls_pods(tmp_path: Path) -> None:
    k8s = copy_k8s(tmp_path)
    monitoring = tmp_path / "serving" / "config" / "monitoring.config"
    monitoring.write_text(f"# Changed.\n{monitoring.read_text()}")
    names = set()
    for objects in (built("local"), build("local", k8s=k8s)):
        (config,) = of_kind(objects, "ConfigMap")
        volumes = named(objects, "Deployment", "model-server")["spec"]["template"]["spec"]["volumes"]
        assert {"name": "config", "configMap": {"name": config["metadata"]["name"]}} in volumes
        names.add(config["metadata"]["name"])
    assert len(names) == 2


def test_configuration_is_that_of_compose() -> None:
    (config,) = of_kind(built("local"), "ConfigMap")
    folder = K8S.parent / "serving" / "config"
    assert config["data"] == {path.name: path.read_text() for path in folder.glob("*.config")}
