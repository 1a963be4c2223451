"""Selectors, ports and network policies of k8s/."""

from typing import Any

import pytest

from tests.kustomize import Object, built, containers, every_build, named, of_kind, pod, pods


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """True if a label selector matches a pod with these labels."""
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    expressions = selector.get("matchExpressions", [])
    assert all(expression["operator"] == "In" for expression in expressions)
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(expression["key"]) in expression["values"] for expression in expressions
    )


def labels_of(component: str) -> dict[str, str]:
    """Return the labels that identify a component's pods, which need not be in a build."""
    return {
        "app.kubernetes.io/name": "digits",
        "app.kubernetes.io/instance": "digits",
        "app.kubernetes.io/component": component,
    }


def selects_peer(rule: Object, component: str) -> bool:
    """True if a rule without namespaces allows a component's pods."""
    return any(
        "namespaceSelector" not in peer and selects(peer.get("podSelector", {}), labels_of(component))
        for peer in rule["to"]
        if "podSelector" in peer
    )


def labels(name: str, component: str) -> dict[str, str]:
    """Return the labels of a component's pods."""
    candidates = (dict(template["metadata"]["labels"]) for template in pods(built(name)))
    return next(found for found in candidates if found["app.kubernetes.io/component"] == component)


def policies(name: str, component: str) -> list[Any]:
    """Return the network policies that select a component's pods."""
    pod_labels = labels(name, component)
    return [
        policy["spec"]
        for policy in of_kind(built(name), "NetworkPolicy")
        if selects(policy["spec"]["podSelector"], pod_labels)
    ]


def ports(rule: Object) -> set[int]:
    return {port["port"] for port in rule["ports"]}


@pytest.mark.parametrize("name", every_build())
def test_deployments_select_their_pods(name: str) -> None:
    for deployment in of_kind(built(name), "Deployment"):
        assert selects(deployment["spec"]["selector"], pod(deployment)["metadata"]["labels"])


@pytest.mark.parametrize("name", every_build())
def test_services_and_probes_name_existing_ports(name: str) -> None:
    for service in of_kind(built(name), "Service"):
        (target,) = [
            template
            for template in pods(built(name))
            if selects({"matchLabels": service["spec"]["selector"]}, template["metadata"]["labels"])
        ]
        open_ports = {port["name"] for container in containers(target) for port in container.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= open_ports
    for template in pods(built(name)):
        for container in containers(template):
            known = {value for port in container.get("ports", []) for value in port.values()}
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                probe = container.get(kind, {})
                for protocol in probe.keys() & {"httpGet", "tcpSocket", "grpc"}:
                    assert probe[protocol]["port"] in known


@pytest.mark.parametrize("name", every_build())
def test_gateway_targets_headless_service(name: str) -> None:
    (gateway,) = containers(pod(named(built(name), "Deployment", "gateway")))
    (target,) = [entry["value"] for entry in gateway["env"] if entry["name"] == "DIGITS_MODEL_SERVER"]
    service = named(built(name), "Service", "model-server-grpc")["spec"]
    # Headless Service: its DNS name has the addresses of all pods.
    assert service["clusterIP"] == "None"
    assert target == f"dns:///model-server-grpc:{service['ports'][0]['port']}"


@pytest.mark.parametrize("name", every_build())
def test_pod_has_default_deny_and_own_policy(name: str) -> None:
    for template in pods(built(name)):
        component = template["metadata"]["labels"]["app.kubernetes.io/component"]
        deny = named(built(name), "NetworkPolicy", "default-deny")["spec"]
        assert selects(deny["podSelector"], template["metadata"]["labels"])
        assert deny.keys() == {"podSelector", "policyTypes"}
        assert deny["policyTypes"] == ["Ingress", "Egress"]
        # default-deny and the component's own policy.
        assert len(policies(name, component)) >= 2


@pytest.mark.parametrize("name", every_build())
def test_model_server_ingress_is_gateway_jobs_and_prometheus(name: str) -> None:
    rules = [rule for policy in policies(name, "model-server") for rule in policy.get("ingress", [])]
    callers = {}
    for rule in rules:
        (caller,) = rule["from"]
        if "podSelector" in caller:
            for component in ("gateway", "training", "releases", "retrain", "score", "redis"):
                if selects(caller["podSelector"], labels_of(component)):
                    callers[component] = ports(rule)
        else:
            callers[caller["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]] = ports(rule)
    jobs = {component: {8500} for component in ("releases", "retrain", "score")}
    assert callers == jobs | {"gateway": {8500, 8501}, "monitoring": {8501}}


def test_releases_job_reaches_model_server_gateway_and_dns_only() -> None:
    """`digits models promote --job` prints a Job with these labels."""
    found = [
        policy["spec"]
        for policy in of_kind(built("production"), "NetworkPolicy")
        if selects(policy["spec"]["podSelector"], labels_of("releases"))
    ]
    assert not [rule for policy in found for rule in policy.get("ingress", [])]
    reached = {
        port: [labels for labels in ("model-server", "gateway") if selects_peer(rule, labels)]
        for policy in found
        for rule in policy.get("egress", [])
        for port in ports(rule)
    }
    assert reached == {53: [], 8500: ["model-server"], 8080: ["gateway"]}


@pytest.mark.parametrize("name", every_build())
def test_model_server_egress_is_object_storage_at_most(name: str) -> None:
    rules = [rule for policy in policies(name, "model-server") for rule in policy.get("egress", [])]
    assert [ports(rule) for rule in rules] == ([{53}, {443}] if "model-bucket" in name else [])


@pytest.mark.parametrize("name", every_build())
def test_gateway_egress_is_model_server_dns_and_that_of_components(name: str) -> None:
    rules = [rule for policy in policies(name, "gateway") for rule in policy.get("egress", [])]
    added = {"monitoring": [4317, 4318], "feedback": [5432], "redis": [6379]}
    known = [[53], [8500, 8501], *(added[component] for component in added.keys() & name.split("+"))]
    assert sorted(map(sorted, map(ports, rules))) == sorted(known)
    (calls,) = [rule for rule in rules if 8500 in ports(rule)]
    (callee,) = calls["to"]
    assert selects(callee["podSelector"], labels(name, "model-server"))


def test_training_has_https_egress_and_no_ingress() -> None:
    found = policies("local", "training")
    assert not [rule for policy in found for rule in policy.get("ingress", [])]
    assert sorted(sorted(ports(rule)) for policy in found for rule in policy.get("egress", [])) == [
        [53],
        [443],
    ]


def test_score_egress_is_own_pods_model_server_dns_and_storage() -> None:
    rules = [rule for policy in policies("local+score", "score") for rule in policy.get("egress", [])]
    (own,) = [rule for rule in rules if "ports" not in rule]
    assert [selects(peer["podSelector"], labels("local+score", "score")) for peer in own["to"]] == [True]
    assert sorted(sorted(ports(rule)) for rule in rules if rule is not own) == [[53], [443], [8500]]
    (calls,) = [rule for rule in rules if "ports" in rule and 8500 in ports(rule)]
    (callee,) = calls["to"]
    assert selects(callee["podSelector"], labels("local+score", "model-server"))


def test_score_ingress_is_own_pods_and_operator() -> None:
    rules = [rule for policy in policies("local+score", "score") for rule in policy.get("ingress", [])]
    own, operator = sorted(rules, key=lambda rule: "ports" in rule)
    assert [selects(peer["podSelector"], labels("local+score", "score")) for peer in own["from"]] == [True]
    assert ports(operator) == {8265}
    (peer,) = operator["from"]
    assert selects(peer["podSelector"], {"app.kubernetes.io/component": "kuberay-operator"})


@pytest.mark.parametrize("name", every_build())
def test_dns_policy_reaches_cluster_dns(name: str) -> None:
    (rule,) = named(built(name), "NetworkPolicy", "dns")["spec"]["egress"]
    assert selects(rule["to"][0]["podSelector"], {"k8s-app": "kube-dns"})


def test_redis_ingress_is_gateways_only() -> None:
    found = policies("local+redis", "redis")
    (rule,) = [rule for policy in found for rule in policy.get("ingress", [])]
    (caller,) = rule["from"]
    assert ports(rule) == {6379}
    reached = {
        component: selects(caller["podSelector"], labels("local+redis", component))
        for component in ("gateway", "model-server", "training", "redis")
    }
    assert reached == {"gateway": True, "model-server": False, "training": False, "redis": False}
    assert not [rule for policy in found for rule in policy.get("egress", [])]


def test_retraining_egress_is_that_of_its_work() -> None:
    found = policies("local+retrain", "retrain")
    assert not [rule for policy in found for rule in policy.get("ingress", [])]
    rules = [rule for policy in found for rule in policy.get("egress", [])]
    assert sorted(sorted(ports(rule)) for rule in rules) == [[53], [443, 5432], [8080], [8500]]
