"""Every overlay and component builds to objects that Kubernetes knows, field for field."""

from typing import Any

import kubernetes_validate
import pytest

from tests.kustomize import COMPONENTS, K8S, OVERLAYS, built, every, kustomize, named, of_kind

# Kubectl's of Debian, the first that mounts images without being asked to, and the newest.
VERSIONS = ["1.32", "1.35", "1.37"]
# Kinds that a cluster has to be taught, with the fields that these objects may have.
TAUGHT: dict[str, set[str]] = {
    "ServiceMonitor": {"selector", "endpoints"},
    "PrometheusRule": {"groups"},
    "HTTPRoute": {"parentRefs", "hostnames", "rules"},
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", every())
def test_every_object_keeps_to_its_schema(name: str, version: str) -> None:
    for each in built(name):
        if each["kind"] in TAUGHT:
            assert each["spec"].keys() == TAUGHT[each["kind"]]
        else:
            kubernetes_validate.validate(each, version, strict=True)


def test_an_unknown_field_would_be_noticed() -> None:
    service: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "x"},
        "spec": {"prots": []},
    }
    for version in VERSIONS:
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(service, version, strict=True)


@pytest.mark.parametrize("name", every())
def test_everything_is_in_the_namespace_and_named_once(name: str) -> None:
    objects = built(name)
    for each in objects:
        assert each["kind"] == "Namespace" or each["metadata"]["namespace"] == "digits"
    keys = [(each["kind"], each["metadata"]["name"]) for each in objects]
    assert len(keys) == len(set(keys))
    # What is applied first has to be there for the rest.
    assert objects[0]["kind"] == "Namespace"


def test_the_namespace_enforces_the_restricted_standard() -> None:
    labels = named(built("local"), "Namespace", "digits")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_base_builds_on_its_own() -> None:
    assert kustomize(K8S / "base")


def test_every_kustomization_is_covered() -> None:
    folders = {path.parent for path in K8S.rglob("kustomization.yaml")}
    assert folders == {K8S / "base"} | {K8S / "overlays" / each for each in OVERLAYS} | {
        K8S / "components" / each for each in COMPONENTS
    }


@pytest.mark.parametrize("name", ["production", "canary", "local"])
def test_a_changed_configuration_rolls_the_pods(name: str) -> None:
    (config,) = of_kind(built(name), "ConfigMap")
    volumes = named(built(name), "Deployment", "model-server")["spec"]["template"]["spec"]["volumes"]
    assert {"name": "config", "configMap": {"name": config["metadata"]["name"]}} in volumes
    others = {of_kind(built(each), "ConfigMap")[0]["metadata"]["name"] for each in OVERLAYS}
    assert len(others) == len(OVERLAYS)


def test_the_configuration_is_that_of_compose() -> None:
    (config,) = of_kind(built("local"), "ConfigMap")
    folder = K8S.parent / "serving" / "config"
    assert config["data"] == {path.name: path.read_text() for path in folder.glob("*.config")}
