"""Names of two releases in one namespace: they share no object, and each refers to its own objects only."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.k8s.conftest import ROWS, installation_of
from tests.k8s.test_network import ADDRESS
from tests.k8s.test_objects import SECRETS, label_selectors, references
from tests.k8s.test_values import refusal
from tests.manifests import (
    Object,
    containers,
    environment,
    merge,
    named,
    notes,
    of_kind,
    pod,
    pods,
    templates,
)

pytestmark = pytest.mark.slow

# Values by which every choice of the chart refers to something.
EVERYTHING: dict[str, Any] = {
    "gateway": {"tls": True},
    "modelServer": {"tls": True},
    "rateLimit": "1/second",
    "monitoring": {"enabled": True},
    "autoscaling": {"metric": "queue"},
}


def rendered(values: dict[str, Any], release: str) -> list[Object]:
    """Return the objects of a release, with those of `helm test`."""
    files = templates(values, name=release)
    texts = [text for path, text in files.items() if path.endswith(".yaml")]
    return [item for text in texts for item in yaml.load_all(text, yaml.CSafeLoader) if item]


def secrets(values: dict[str, Any], prefix: str) -> set[str]:
    """Return the names of the Secrets of a release."""
    return {values["secrets"][key] or prefix + default for key, default in SECRETS.items()}


def named_objects(value: Any) -> Iterator[tuple[str, str]]:
    """Yield kind and name of what an object other than a pod refers to."""
    if isinstance(value, list):
        for item in value:
            yield from named_objects(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == "scaleTargetRef":
                yield "Deployment", item["name"]
            elif key == "horizontalPodAutoscalerConfig":
                yield "ScaledObject", item["name"]
            elif key == "service" and isinstance(item, dict):
                yield "Service", item["name"]
            elif key == "backendRefs":
                yield from (("Service", each["name"]) for each in item)
            elif key == "tlsConfig":
                yield "Secret", item["ca"]["secret"]["name"]
                yield "Service", item["serverName"]
            elif key == "query":
                yield from (("Service", name) for name in re.findall(r'service="(.*?)"', item))
            elif key != "template":
                yield from named_objects(item)


def addressed(objects: list[Object], template: Object) -> Iterator[str]:
    """Yield the hosts in the environment of a pod."""
    for container in containers(template):
        for name, value in environment(container, objects).items():
            address = ADDRESS.fullmatch(value.replace("https://", "http://"))
            if address and name.startswith("DIGITS_"):
                yield address[1]


def check_references(objects: list[Object], own_secrets: set[str], others: list[Object]) -> None:
    """Assert that the objects refer to each other, and select nothing of the others."""
    known = {(item["kind"], item["metadata"]["name"]) for item in objects}
    known |= {("Secret", name) for name in own_secrets}
    tests = [{"metadata": item["metadata"], "spec": item["spec"]} for item in of_kind(objects, "Pod")]
    templates_of = [*pods(objects), *tests]
    for template in templates_of:
        assert set(references(template)) <= known
        assert {("Service", host) for host in addressed(objects, template)} <= known

    def labels(items: list[Object]) -> list[Any]:
        selectable = [*pods(items), *of_kind(items, "Pod", "Service")]
        return [item["metadata"]["labels"].items() for item in selectable]

    for item in objects:
        assert set(named_objects(item.get("spec", {}))) <= known, item["metadata"]["name"]
        for selector in label_selectors(item.get("spec", {})):
            assert any(selector.items() <= found for found in labels(objects)), (item["metadata"], selector)
            assert not any(selector.items() <= found for found in labels(others)), (
                item["metadata"],
                selector,
            )


@pytest.mark.parametrize("row", [*ROWS, "everything"])
@pytest.mark.parametrize(("release", "override"), [("ours", ""), ("theirs", "ours"), ("digits-2", "")])
def test_two_releases_share_no_object_and_refer_to_their_own(row: str, release: str, override: str) -> None:
    values = merge(installation_of("local").values, EVERYTHING)
    if row != "everything":
        values = installation_of(row).values
    second = rendered({**values, "fullnameOverride": override}, release)
    first = rendered(values, "digits")
    assert len(first) == len(second)
    keys = [{(item["kind"], item["metadata"]["name"]) for item in objects} for objects in (first, second)]
    assert not keys[0] & keys[1]
    assert all(name.startswith(f"{override or release}-") for _, name in keys[1])
    check_references(first, secrets(values, ""), second)
    check_references(second, secrets(values, f"{override or release}-"), first)


def test_names_of_the_release_digits_are_those_of_the_last_version() -> None:
    objects = rendered(EVERYTHING, "digits")
    for name in ("gateway", "model-server", "redis"):
        selector = named(objects, "Deployment", name)["spec"]["selector"]["matchLabels"]
        assert selector == {"app.kubernetes.io/name": "digits", "app.kubernetes.io/component": name}
    names = {item["metadata"]["name"] for item in objects}
    assert names >= {"digits", "models", "model-server-grpc", "model-server-connection", "default-deny"}
    # A release of another name keeps these names by its value.
    kept = rendered({**EVERYTHING, "fullnameOverride": "digits"}, "other")
    instance = json.dumps(kept).replace('/instance": "other"', '/instance": "digits"')
    hashes = re.compile("training-[0-9a-f]{8}")
    assert hashes.sub("", instance) == hashes.sub("", json.dumps(objects))


def test_notes_name_the_release_that_is_installed() -> None:
    assert "deployment/gateway" in notes({})
    said = notes({"fullnameOverride": "ours"})
    assert "deployment/ours-gateway" in said
    assert "http://ours-gateway.digits" in said
    assert "service/ours-gateway" in said
    assert "Secret" not in said
    assert "api-key of the Secret ours-releases;" in notes({"fullnameOverride": "ours", "apiKeys": True})


def test_certificate_of_the_model_servers_names_the_service_that_gateways_call() -> None:
    (gateway,) = containers(pod(named(rendered({}, "ours"), "Deployment", "ours-gateway")))
    variables = environment(gateway, rendered({}, "ours"))
    assert variables["DIGITS_MODEL_SERVER"] == "dns:///ours-model-server-grpc:8500"


@pytest.mark.parametrize("name", ["a" * 44, "Ours", "a.b", "-a", "1a", "a_b"])
def test_name_that_a_service_can_not_have_is_refused(name: str) -> None:
    assert "'/fullnameOverride'" in refusal({"fullnameOverride": name})


@pytest.mark.parametrize("release", ["a" * 44, "2nd", "a.b"])
def test_release_whose_name_a_service_can_not_have_asks_for_another(release: str) -> None:
    helm = pytest.importorskip("helm_python")
    with pytest.raises(helm.HelmError, match="fullnameOverride: set it"):
        templates({}, name=release)
    assert templates({"fullnameOverride": "second"}, name=release)
