"""Who reaches whom."""

from typing import Any

import pytest

from tests.kustomize import Object, built, containers, every, named, of_kind, pods


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a label selector means a pod with these labels."""
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    expressions = selector.get("matchExpressions", [])
    assert all(each["operator"] == "In" for each in expressions)
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(each["key"]) in each["values"] for each in expressions
    )


def labels(name: str, component: str) -> dict[str, str]:
    """Of the pods of a component."""
    found = [each["metadata"]["labels"] for each in pods(built(name))]
    (first, *_) = [each for each in found if each["app.kubernetes.io/component"] == component]
    return dict(first)


def policies(name: str, component: str) -> list[Any]:
    """The policies that mean the pods of a component."""
    mine = labels(name, component)
    return [
        each["spec"]
        for each in of_kind(built(name), "NetworkPolicy")
        if selects(each["spec"]["podSelector"], mine)
    ]


def ports(rule: Object) -> set[int]:
    return {each["port"] for each in rule["ports"]}


@pytest.mark.parametrize("name", every())
def test_deployments_select_their_pods(name: str) -> None:
    for each in of_kind(built(name), "Deployment"):
        assert selects(each["spec"]["selector"], each["spec"]["template"]["metadata"]["labels"])


@pytest.mark.parametrize("name", every())
def test_services_and_probes_mean_ports_that_there_are(name: str) -> None:
    for service in of_kind(built(name), "Service"):
        targets = [
            each
            for each in pods(built(name))
            if selects({"matchLabels": service["spec"]["selector"]}, each["metadata"]["labels"])
        ]
        (target,) = targets
        open_ports = {port["name"] for one in containers(target) for port in one.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= open_ports
    for each in pods(built(name)):
        for one in containers(each):
            known = {value for port in one.get("ports", []) for value in port.values()}
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                probe = one.get(kind, {})
                for how in probe.keys() & {"httpGet", "tcpSocket", "grpc"}:
                    assert probe[how]["port"] in known


@pytest.mark.parametrize("name", every())
def test_the_gateway_asks_every_model_server(name: str) -> None:
    (gateway,) = named(built(name), "Deployment", "gateway")["spec"]["template"]["spec"]["containers"]
    (target,) = [each["value"] for each in gateway["env"] if each["name"] == "DIGITS_MODEL_SERVER"]
    service = named(built(name), "Service", "model-server-grpc")["spec"]
    # Without an address of its own its name stands for those of its pods.
    assert service["clusterIP"] == "None"
    assert target == f"dns:///model-server-grpc:{service['ports'][0]['port']}"


@pytest.mark.parametrize("name", every())
def test_every_pod_is_closed_in_both_directions(name: str) -> None:
    for each in pods(built(name)):
        component = each["metadata"]["labels"]["app.kubernetes.io/component"]
        assert named(built(name), "NetworkPolicy", "default-deny")["spec"] == {
            "podSelector": {},
            "policyTypes": ["Ingress", "Egress"],
        }
        # Its own beside that for all.
        assert len(policies(name, component)) >= 2


@pytest.mark.parametrize("name", every())
def test_only_gateways_and_prometheus_reach_the_model_server(name: str) -> None:
    rules = [rule for policy in policies(name, "model-server") for rule in policy.get("ingress", [])]
    callers = {
        caller["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
        if "podSelector" in caller
        else caller["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]: ports(rule)
        for rule in rules
        for caller in rule["from"]
    }
    assert callers == {"gateway": {8500, 8501}, "monitoring": {8501}}


@pytest.mark.parametrize("name", every())
def test_the_model_server_reaches_nobody(name: str) -> None:
    assert not [rule for policy in policies(name, "model-server") for rule in policy.get("egress", [])]


@pytest.mark.parametrize("name", every())
def test_the_gateway_reaches_the_model_server_and_dns_and_a_collector_only(name: str) -> None:
    rules = [rule for policy in policies(name, "gateway") for rule in policy.get("egress", [])]
    known = [[53], [4317, 4318], [8500, 8501]] if "monitoring" in name else [[53], [8500, 8501]]
    assert sorted(map(sorted, map(ports, rules))) == known
    (calls,) = [rule for rule in rules if 8500 in ports(rule)]
    (callee,) = calls["to"]
    assert selects(callee["podSelector"], labels(name, "model-server"))


def test_the_training_job_reaches_where_mnist_is_and_nobody_reaches_it() -> None:
    found = policies("local", "training")
    assert not [rule for policy in found for rule in policy.get("ingress", [])]
    assert sorted(sorted(ports(rule)) for policy in found for rule in policy.get("egress", [])) == [
        [53],
        [443],
    ]
