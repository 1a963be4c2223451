"""Recommended labels of k8s/, and two installations in one namespace."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.kustomize import K8S, STACK, Object, build, built, containers, every_build, named, pod, pods
from tests.readme import blocks

RECOMMENDED = {
    f"app.kubernetes.io/{name}"
    for name in ("name", "instance", "component", "version", "part-of", "managed-by")
}
IDENTITY = {f"app.kubernetes.io/{name}" for name in ("name", "instance", "component")}


@pytest.mark.parametrize("name", every_build())
def test_object_and_pod_have_recommended_labels(name: str) -> None:
    for item in built(name):
        assert item["metadata"]["labels"].keys() >= RECOMMENDED, item["metadata"]["name"]
    for template in pods(built(name)):
        assert template["metadata"]["labels"].keys() >= RECOMMENDED


def label_selectors(value: Any) -> Iterator[Object]:
    """Yield every label selector for pods or Services that an object contains."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in ("podSelector", "labelSelector") or (key == "selector" and "matchLabels" in item):
                yield item
            elif key == "selector" and item:
                yield {"matchLabels": item}
            else:
                yield from label_selectors(item)
    elif isinstance(value, list):
        for item in value:
            yield from label_selectors(item)


def selectors_of_own(objects: tuple[Object, ...] | list[Object]) -> list[Object]:
    """Return the selectors but those of other software: the cluster's DNS and KubeRay's operator."""
    found = [selector for item in objects for selector in label_selectors(item.get("spec", {}))]
    return [selector for selector in found if "matchLabels" in selector]


@pytest.mark.parametrize("name", every_build())
def test_selector_names_installation(name: str) -> None:
    assert selectors_of_own(built(name))
    for selector in selectors_of_own(built(name)):
        keys = {*selector["matchLabels"], *(rule["key"] for rule in selector.get("matchExpressions", []))}
        # The default deny is for every component.
        assert keys == IDENTITY or keys == IDENTITY - {"app.kubernetes.io/component"}


@pytest.mark.parametrize("name", every_build())
def test_selector_of_others_is_of_dns_or_ray_operator(name: str) -> None:
    for item in built(name):
        for selector in label_selectors(item.get("spec", {})):
            if "matchLabels" not in selector:
                (rule,) = selector["matchExpressions"]
                assert rule["values"] in (["kube-dns"], ["kuberay-operator"])


def second(*components: str) -> list[Object]:
    """Return the objects of a second installation, with the fields of the documentation."""
    (block,) = [block for block in blocks("bash") if "nameSuffix" in block]
    fields = yaml.safe_load(block.split("'")[1])
    return build(
        "production", *components, **{key: fields[key] for key in ("nameSuffix", "labels", "patches")}
    )


def test_installations_in_one_namespace_do_not_mix() -> None:
    stack = [component for component in STACK if component != "redis"]
    first, other = build("production", *stack), second(*stack)
    for one, two in ((first, other), (other, first)):
        labels = [item["metadata"].get("labels", {}) for item in (*two, *pods(two))]
        for selector in selectors_of_own(one):
            assert not any(selector["matchLabels"].items() <= found.items() for found in labels)
    names = [
        {(item["kind"], item["metadata"]["name"]) for item in objects if item["kind"] != "Namespace"}
        for objects in (first, other)
    ]
    assert not names[0] & names[1]


def test_second_installation_selects_its_own_pods() -> None:
    objects = second(*STACK)
    labels = [template["metadata"]["labels"] for template in pods(objects)]
    services = [item["metadata"]["labels"] for item in objects if item["kind"] == "Service"]
    for item in objects:
        for selector in selectors_of_own([item]):
            candidates = services if item["kind"] == "ServiceMonitor" else labels
            assert any(selector["matchLabels"].items() <= found.items() for found in candidates)


def test_second_installation_calls_its_own_model_servers() -> None:
    objects = second()
    (gateway,) = containers(pod(named(objects, "Deployment", "gateway-b")))
    service = named(objects, "Service", "model-server-grpc-b")
    (target,) = [entry["value"] for entry in gateway["env"] if entry["name"] == "DIGITS_MODEL_SERVER"]
    assert target == f"dns:///{service['metadata']['name']}:8500"
    # Deleting the second installation must not delete the first one's namespace.
    assert not [item for item in objects if item["kind"] == "Namespace"]


def test_second_installation_names_its_own_objects() -> None:
    objects = second(*STACK)
    names = {(item["kind"], item["metadata"]["name"]) for item in objects}
    used = {("ServiceAccount", template["spec"]["serviceAccountName"]) for template in pods(objects)}
    for template in pods(objects):
        for volume in template["spec"]["volumes"]:
            if "configMap" in volume:
                used.add(("ConfigMap", volume["configMap"]["name"]))
            if "persistentVolumeClaim" in volume:
                used.add(("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]))
    (rule,) = named(objects, "HTTPRoute", "gateway-b")["spec"]["rules"]
    used.add(("Service", rule["backendRefs"][0]["name"]))
    (rule,) = named(objects, "Ingress", "gateway-b")["spec"]["rules"]
    used.update(("Service", path["backend"]["service"]["name"]) for path in rule["http"]["paths"])
    scaled = named(objects, "ScaledObject", "gateway-b")["spec"]
    used.add(("Deployment", scaled["scaleTargetRef"]["name"]))
    scaler = named(objects, "HorizontalPodAutoscaler", "model-server-b")["spec"]
    used.add(("Deployment", scaler["scaleTargetRef"]["name"]))
    assert used <= names
    # KEDA creates this autoscaler.
    assert scaled["advanced"]["horizontalPodAutoscalerConfig"]["name"] == "gateway-b"


def test_version_is_in_no_selector() -> None:
    text = (K8S / "labels" / "kustomization.yaml").read_text()
    in_selectors = [pair for pair in yaml.safe_load(text)["labels"] if pair.get("includeSelectors")]
    assert [sorted(pair["pairs"]) for pair in in_selectors] == [
        ["app.kubernetes.io/instance", "app.kubernetes.io/name"]
    ]
