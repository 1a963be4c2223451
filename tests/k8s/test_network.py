"""Network policies of every installation: each connection that its pods need is allowed, and no other."""

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.k8s.conftest import Installation
from tests.manifests import component, containers, environment, named, of_kind, pods, policies

# Callee or caller outside, of a rule that names none.
ANYBODY = "{}"
# Address of a Service in an environment variable.
ADDRESS = re.compile(r"(?:dns:///|redis://|http://)([a-z-]+)(?::(\d+))?")

Connection = tuple[str, str, int]


def allowed(installation: Installation, direction: str) -> Iterator[tuple[str, str, int]]:
    """Yield component, peer and port of each rule; a peer is a component, or a NetworkPolicyPeer in JSON."""
    labels = {component(pod): pod["metadata"]["labels"] for pod in pods(installation.objects)}
    side = {"egress": "to", "ingress": "from"}[direction]
    for name in labels:
        for policy in policies(labels[name], installation.objects):
            for rule in policy.get(direction, []):
                for port in rule["ports"]:
                    for peer in rule.get(side, [{}]):
                        if peer.keys() == {"podSelector"}:
                            selector = peer["podSelector"]["matchLabels"].items()
                            found = [other for other in labels if selector <= labels[other].items()]
                            # A rule for pods that are nowhere would be a mistake.
                            assert found, (name, peer)
                            yield from ((name, other, port["port"]) for other in found)
                        else:
                            yield name, json.dumps(peer), port["port"]


def needed(installation: Installation) -> set[Connection]:
    """Return caller, callee and port of each Service whose address is in an environment."""
    objects = installation.objects
    services = {service["metadata"]["name"]: service["spec"] for service in of_kind(objects, "Service")}
    calls = set()
    for template in pods(installation.objects):
        for container in containers(template):
            for value in environment(container, objects).values():
                address = ADDRESS.fullmatch(value)
                if address and address[1] in services:
                    service = services[address[1]]
                    callee = service["selector"]["app.kubernetes.io/component"]
                    (port,) = service["ports"]
                    assert port["port"] == int(address[2] or 80)
                    (server,) = [
                        server
                        for pod in pods(objects)
                        if component(pod) == callee
                        for server in pod["spec"]["containers"]
                    ]
                    numbers = {each["name"]: each["containerPort"] for each in server["ports"]}
                    calls.add((component(template), callee, numbers[port["targetPort"]]))
    return calls


def monitoring(installation: Installation) -> str:
    namespace = installation.values["monitoring"]["namespace"]
    return json.dumps({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}})


def test_pod_has_default_deny(installation: Installation) -> None:
    deny = named(installation.objects, "NetworkPolicy", "default-deny")["spec"]
    assert deny.keys() == {"podSelector", "policyTypes"}
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    for template in pods(installation.objects):
        assert deny["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


def test_pods_may_make_the_calls_of_their_environment_and_no_others(installation: Installation) -> None:
    names = {component(template) for template in pods(installation.objects)}
    calls = set(allowed(installation, "egress"))
    assert {call for call in calls if call[1] in names} == needed(installation)
    dns = installation.values["dns"]
    resolving = {name for name, *server in calls if server == [json.dumps(dns["peers"][0]), dns["port"]]}
    assert resolving == {name for name, _, _ in calls}
    assert ("model-server" in resolving) == (installation.values["models"]["source"] == "bucket")
    assert "redis" not in resolving


def test_pods_may_be_called_by_those_who_call_and_by_no_others(installation: Installation) -> None:
    values = installation.values
    expected = {(callee, caller, port) for caller, callee, port in needed(installation)}
    if values["monitoring"]["enabled"]:
        scraped = [*SCRAPED.items(), *([("model-server", 8502)] if is_pulled(installation) else [])]
        expected |= {(name, monitoring(installation), port) for name, port in scraped}
    callers = values["gateway"]["callers"]
    if callers:
        expected |= {("gateway", json.dumps(peer), 8080) for peer in callers}
    else:
        # Everybody includes the releases' Jobs and Prometheus.
        expected = {entry for entry in expected if entry[0] != "gateway"} | {("gateway", ANYBODY, 8080)}
    assert set(allowed(installation, "ingress")) == expected


SCRAPED = {"gateway": 8080, "model-server": 8501}


def is_pulled(installation: Installation) -> bool:
    return bool(installation.values["models"]["source"] == "bucket")


def test_pods_may_reach_outside_addresses_of_the_values_only(installation: Installation) -> None:
    values = installation.values
    expected: set[Connection] = set()

    def expect(name: str, peers: list[Any], *ports: int) -> None:
        expected.update((name, json.dumps(peer), port) for peer in peers for port in ports)

    if installation.has_volume:
        expect("training", values["training"]["peers"], 443)
    if values["models"]["source"] == "bucket":
        bucket = values["models"]["bucket"]
        expect("model-server", bucket["peers"], bucket["port"])
    if values["feedback"]["enabled"]:
        for name in ("gateway", "training") if installation.has_volume else ("gateway",):
            expect(name, values["feedback"]["peers"], values["feedback"]["port"])
    if values["redis"]["external"]:
        expect("gateway", values["redis"]["peers"], values["redis"]["port"])
    if values["monitoring"]["traces"]:
        expect("gateway", [json.loads(monitoring(installation))], 4317, 4318)
    names = {component(template) for template in pods(installation.objects)}
    for name in {name for name, _, _ in allowed(installation, "egress")}:
        expect(name, values["dns"]["peers"], values["dns"]["port"])
    outside = {call for call in allowed(installation, "egress") if call[1] not in names}
    assert outside == expected
    assert not any(peer == ANYBODY for _, peer, _ in outside)


def test_scraped_ports_are_those_of_the_monitors(installation: Installation) -> None:
    scraped = {}
    for monitor in of_kind(installation.objects, "ServiceMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"]
        (endpoint,) = monitor["spec"]["endpoints"]
        (service,) = [
            item
            for item in of_kind(installation.objects, "Service")
            if selector.items() <= item["metadata"]["labels"].items()
            and endpoint["port"] in {port["name"] for port in item["spec"]["ports"]}
        ]
        job = service["metadata"]["labels"][monitor["spec"]["jobLabel"]]
        (server,) = [
            server
            for template in pods(installation.objects)
            if component(template) == service["spec"]["selector"]["app.kubernetes.io/component"]
            for server in template["spec"]["containers"]
        ]
        (scraped[job],) = [
            port["containerPort"] for port in server["ports"] if port["name"] == endpoint["port"]
        ]
    is_enabled = installation.values["monitoring"]["enabled"]
    assert scraped == (SCRAPED if is_enabled else {})
    monitors = of_kind(installation.objects, "PodMonitor")
    assert len(monitors) == (is_enabled and is_pulled(installation))
    for monitor in monitors:
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        selector = monitor["spec"]["selector"]["matchLabels"].items()
        (template,) = [
            each for each in pods(installation.objects) if selector <= each["metadata"]["labels"].items()
        ]
        (port,) = [
            port["containerPort"]
            for container in containers(template)
            for port in container.get("ports", [])
            if port["name"] == endpoint["port"]
        ]
        assert port == 8502
