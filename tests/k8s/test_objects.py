"""Objects of every installation: schemas, names, labels, and references to other objects."""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import kubernetes_validate
import pytest

from tests.k8s.conftest import Installation
from tests.manifests import OVERLAYS, VERSIONS, containers, named, of_kind, overlay, pod, pods

# Names of the Secrets by default.
SECRETS = {
    "gatewayKeys": "gateway-keys",
    "gatewayServerTls": "gateway-server-tls",
    "gatewayTls": "gateway-tls",
    "modelServerTls": "model-server-tls",
    "modelBucket": "model-bucket",
    "redis": "redis",
    "feedback": "feedback",
    "releases": "releases",
}
# Their schemas are those of operators; other tests read what the chart writes.
CUSTOM_RESOURCES = {"ServiceMonitor", "PodMonitor", "PrometheusRule", "HTTPRoute", "ScaledObject"}


@cache
def validate(document: str, version: str) -> None:
    """Validate an object in JSON; cached, since most objects are the same in many installations."""
    kubernetes_validate.validate(json.loads(document), version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_object_matches_schema(installation: Installation, version: str) -> None:
    for item in installation.objects:
        if item["kind"] not in CUSTOM_RESOURCES:
            validate(json.dumps(item), version)


def test_objects_are_in_namespace_and_unique(installation: Installation) -> None:
    objects = installation.objects
    assert {item["metadata"]["namespace"] for item in objects if item["kind"] != "Namespace"} == {"digits"}
    keys = [(item["kind"], item["metadata"]["name"]) for item in objects]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlay_begins_with_restricted_namespace(name: str) -> None:
    # kubectl applies the objects in order: the namespace must exist before the objects in it.
    namespace = overlay(name)[0]
    assert (namespace["kind"], namespace["metadata"]["name"]) == ("Namespace", "digits")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def label_selectors(value: Any) -> Iterator[dict[str, str]]:
    """Yield every label selector for pods or Services of the installation that an object contains."""
    if isinstance(value, list):
        for item in value:
            yield from label_selectors(item)
    elif isinstance(value, dict) and "namespaceSelector" not in value:
        for key, item in value.items():
            if key in ("podSelector", "labelSelector") or (key == "selector" and "matchLabels" in item):
                yield item["matchLabels"]
            elif key == "selector":
                yield item
            else:
                yield from label_selectors(item)


def test_selector_has_identity_only_and_matches(installation: Installation) -> None:
    labels = [template["metadata"]["labels"] for template in pods(installation.objects)]
    for item in installation.objects:
        for selector in label_selectors(item.get("spec", {})):
            # Others of the recommended labels change, and selectors are immutable.
            assert selector.keys() <= {"app.kubernetes.io/name", "app.kubernetes.io/component"}
            assert any(selector.items() <= found.items() for found in labels), (item["metadata"], selector)
    for workload in of_kind(installation.objects, "Deployment"):
        selector = workload["spec"]["selector"]["matchLabels"]
        assert selector.items() <= pod(workload)["metadata"]["labels"].items()


def test_services_and_probes_name_existing_ports(installation: Installation) -> None:
    # Without an address of its own, the name resolves to every model server, among which gateways balance.
    assert named(installation.objects, "Service", "model-server-grpc")["spec"]["clusterIP"] == "None"
    for service in of_kind(installation.objects, "Service"):
        selector = service["spec"]["selector"].items()
        (target,) = [
            template
            for template in pods(installation.objects)
            if selector <= template["metadata"]["labels"].items()
        ]
        open_ports = {port["name"] for container in containers(target) for port in container.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= open_ports
    for template in pods(installation.objects):
        for container in containers(template):
            known = {value for port in container.get("ports", []) for value in port.values()}
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                probe = container.get(kind, {})
                for protocol in probe.keys() & {"httpGet", "tcpSocket", "grpc"}:
                    assert probe[protocol]["port"] in known


def references(template: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield kind and name of each object that a pod needs."""
    spec = template["spec"]
    yield "ServiceAccount", spec["serviceAccountName"]
    for volume in spec["volumes"]:
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"]
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"]
        if "persistentVolumeClaim" in volume:
            yield "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]
    for container in containers(template):
        for entry in container.get("env", []):
            if "valueFrom" in entry:
                yield "Secret", entry["valueFrom"]["secretKeyRef"]["name"]
        for source in container.get("envFrom", []):
            (kind,) = source
            yield {"configMapRef": "ConfigMap", "secretRef": "Secret"}[kind], source[kind]["name"]


def test_referenced_object_exists_or_is_a_documented_secret(installation: Installation) -> None:
    names = {(item["kind"], item["metadata"]["name"]) for item in installation.objects}
    given = installation.values["secrets"]
    known = names | {("Secret", given[key] or default) for key, default in SECRETS.items()}
    for template in pods(installation.objects):
        assert set(references(template)) <= known
        # A mount without its volume is no error of the schema.
        volumes = {volume["name"] for volume in template["spec"]["volumes"]}
        for container in containers(template):
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_autoscaler_scales_a_deployment_without_replicas(installation: Installation) -> None:
    # With a replica count, each `kubectl apply` would undo the autoscaler's count.
    scaled = {}
    for item in of_kind(installation.objects, "HorizontalPodAutoscaler", "ScaledObject"):
        spec = item["spec"]
        low, high = (spec.get(f"{bound}Replicas") or spec[f"{bound}ReplicaCount"] for bound in ("min", "max"))
        scaled[spec["scaleTargetRef"]["name"]] = {"min": low, "max": high}
    for name, key in (("gateway", "gateway"), ("model-server", "modelServer")):
        replicas = installation.values[key]["replicas"]
        deployment = named(installation.objects, "Deployment", name)["spec"]
        if name in scaled:
            assert (scaled[name], "replicas" in deployment) == (replicas, False)
        else:
            assert replicas == {"min": deployment["replicas"], "max": deployment["replicas"]}
