"""Chart: the overlays rendered from it, choices that it refuses, and the objects of single choices."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from digit_core.artifact import traffic
from digit_serving.gateway.errors import RateLimitedError
from digit_serving.gateway.observers.metrics import Metrics
from digit_serving.gateway.rate_limit import RateLimiter
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.k8s.conftest import DATABASE, PUBLIC_KEY, STORAGE
from tests.manifests import (
    K8S,
    OVERLAYS,
    VERSIONS,
    component,
    containers,
    environment,
    merge,
    named,
    notes,
    of_kind,
    pod,
    pods,
    render,
    templates,
    training_job,
)
from tests.processes import accepts, free_port, wait_until

RELEASE = K8S.parent / ".github" / "workflows" / "release.yml"
CONFIG = K8S.parent / "serving" / "config"
BUCKET = {"models": {"source": "bucket", "bucket": {"peers": [STORAGE]}}}
SIGNED = merge(BUCKET, {"models": {"bucket": {"publicKey": PUBLIC_KEY}}})
FEEDBACK = {"apiKeys": True, "feedback": {"enabled": True, "peers": [DATABASE]}}
WATCHED = {"monitoring": {"enabled": True}}
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlay_is_rendered_from_the_chart(name: str) -> None:
    pytest.importorskip("helm_python")
    from k8s.render import overlay as rendered

    assert (K8S / "overlays" / name / "objects.yaml").read_text() == rendered(name), "run make manifests"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"modelName": "flowers"}, "modelName: by default, jobs on the volume train digits"),
        ({"models": {"volume": {"accessMode": "ReadWriteOnce"}}}, "a ReadWriteOnce volume is on one node"),
        ({"models": {"source": "bucket"}}, "models.bucket.peers: name the addresses"),
        ({"models": {"bucket": {"publicKey": PUBLIC_KEY}}}, "signatures are verified as versions are pulled"),
        ({"apiKeys": True, "feedback": {"enabled": True}}, "feedback.peers: name the addresses"),
        (merge(FEEDBACK, {"apiKeys": False}), "feedback: set apiKeys"),
        ({"training": {"schedule": "0 3 * * 0"}}, "training.schedule: needs feedback.enabled"),
        (merge(FEEDBACK, BUCKET, {"training": {"schedule": "0 3 * * 0"}}), "models.source: volume, on which"),
        ({"autoscaling": {"metric": "queue"}}, "queue needs monitoring.enabled"),
        ({"gateway": {"replicas": {"min": 30}}}, "gateway.replicas: min is more than max"),
        ({"gateways": {}}, "gateways"),
        ({"gateway": {"tls": True}, "route": {"kind": "ingress"}}, "gateway.tls: a route ends TLS itself"),
        ({"redis": {"external": True}, "rateLimit": "1/second"}, "redis.external: name its addresses"),
    ],
)
def test_chart_refuses_values_that_can_not_work(values: dict[str, Any], sentence: str) -> None:
    helm = pytest.importorskip("helm_python")
    with pytest.raises(helm.HelmError, match=re.escape(sentence)):
        render(values)


SCHEDULING: dict[str, Any] = {
    "priorityClassName": "high",
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}
    ],
}


def test_scheduling_holds_for_all_pods_or_one_component() -> None:
    values = merge(SCHEDULING, {"rateLimit": "1/second", "podLabels": {"team": "a"}})
    for template in pods(render(values)):
        assert {name: template["spec"].get(name) for name in SCHEDULING} == SCHEDULING
        assert template["metadata"]["labels"]["team"] == "a"
    values = merge(values, {"gateway": {"nodeSelector": {"pool": "web"}}})
    selectors = {component(template): template["spec"]["nodeSelector"] for template in pods(render(values))}
    assert selectors.pop("gateway") == {"pool": "web"}
    assert all(selector == SCHEDULING["nodeSelector"] for selector in selectors.values())


def test_affinity_and_tolerations_are_added_to_those_of_the_chart() -> None:
    one_node = {"volume": {"accessMode": "ReadWriteOnce"}}
    values = merge(SCHEDULING, {"models": one_node, "modelServer": {"replicas": {"min": 1, "max": 1}}})
    spec = model_server(merge(values, {"modelServer": {"gpu": True}}))
    assert spec["affinity"].keys() == {"nodeAffinity", "podAffinity"}
    assert [each["key"] for each in spec["tolerations"]] == ["dedicated", "nvidia.com/gpu"]


SHARED_LIMITS = {"rateLimit": "1/second", "redis": {"external": True, "peers": [DATABASE], "port": 6380}}


@pytest.mark.parametrize(
    ("values", "variable", "secret", "users"),
    [
        (FEEDBACK, "DIGITS_FEEDBACK", "feedback", {"gateway", "training"}),
        (SHARED_LIMITS, "DIGITS_RATE_LIMIT_STORE", "redis", {"gateway"}),
    ],
)
def test_address_of_a_store_is_from_secret(
    values: dict[str, Any], variable: str, secret: str, users: set[str]
) -> None:
    objects = render(values)
    entry = {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": "url"}}}
    assert users == {
        component(template)
        for template in pods(objects)
        for container in containers(template)
        if entry in container.get("env", [])
    }
    assert not any("redis" in item["metadata"]["name"] for item in objects)


def test_gateway_with_tls_is_probed_scraped_and_promoted_by_https() -> None:
    service = {
        "type": "LoadBalancer",
        "externalTrafficPolicy": "Local",
        "ipFamilyPolicy": "RequireDualStack",
    }
    objects = render(merge(WATCHED, {"gateway": {"tls": True, "service": service}}))
    template = pod(named(objects, "Deployment", "gateway"))
    (gateway,) = containers(template)
    assert {
        gateway[f"{kind}Probe"]["httpGet"]["scheme"] for kind in ("startup", "liveness", "readiness")
    } == {"HTTPS"}
    variables = environment(gateway, objects)
    mounted = {mount["name"]: mount["mountPath"] for mount in gateway["volumeMounts"]}
    for variable in ("DIGITS_TLS_CERTIFICATE", "DIGITS_TLS_KEY"):
        assert str(Path(variables[variable]).parent) == mounted["server-tls"]
    assert service.items() <= named(objects, "Service", "gateway")["spec"].items()
    (endpoint,) = named(objects, "ServiceMonitor", "gateway")["spec"]["endpoints"]
    assert (endpoint["port"], endpoint["scheme"]) == ("https", "https")
    (release,) = containers(pod(named(objects, "CronJob", "rollback")))
    expected = {"DIGITS_URL": "https://gateway", "SSL_CERT_FILE": "/server-tls/ca.crt"}
    assert expected.items() <= environment(release, objects).items()


def test_notes_warn_of_open_gateways_and_the_test_pod_is_restricted() -> None:
    assert "every pod of the cluster may call the gateways" in notes({})
    closed = {"gateway": {"callers": [DATABASE]}}
    assert "WARNING" not in notes(closed)
    watched = notes(merge(closed, WATCHED))
    assert "WARNING: alerts link docs/how-to/runbook.md" in watched
    assert "WARNING: monitoring.trafficFloor is 0" in watched
    floor = {"monitoring": {"trafficFloor": 0.1}}
    assert "trafficFloor" not in notes(merge(merge(closed, WATCHED), floor))
    test_pod, policy = yaml.safe_load_all(templates(closed)["digits/templates/tests/gateway.yaml"])
    for item in (test_pod, policy):
        assert item["metadata"]["annotations"]["helm.sh/hook"] == "test"
        kubernetes_validate.validate(item, VERSIONS[-1], strict=True)
    (caller,) = policy["spec"]["ingress"][0]["from"]
    assert caller["podSelector"]["matchLabels"] == test_pod["metadata"]["labels"]
    gateway = named(render({}), "Deployment", "gateway")
    assert test_pod["spec"]["securityContext"] == pod(gateway)["spec"]["securityContext"]
    compile(test_pod["spec"]["containers"][0]["command"][-1], "test", "exec")


def test_releases_job_has_the_names_and_the_user_of_the_installation() -> None:
    values: dict[str, Any] = {
        "models": {"volume": {"existingClaim": "ours"}},
        "secrets": {"gatewayTls": "client", "gatewayServerTls": "server", "releases": "promoter"},
        "modelServer": {"tls": True},
    }
    assert not of_kind(render(values), "PersistentVolumeClaim")
    training = pod(training_job(render(values)))["spec"]
    for user in (None, 2000):
        job = pod(named(render({**values, "runAsUser": user}), "CronJob", "rollback"))["spec"]
        volumes = {volume["name"]: volume for volume in job["volumes"]}
        assert volumes["models"] in training["volumes"]
        assert volumes["tls"]["secret"]["secretName"] == "client"
        assert volumes["server-tls"]["secret"]["secretName"] == "server"
        (key,) = [each for each in job["containers"][0]["env"] if each["name"] == "DIGITS_API_KEY"]
        assert key["valueFrom"]["secretKeyRef"]["name"] == "promoter"
        expected = pod(training_job(render({"runAsUser": user})))["spec"]["securityContext"]
        assert job["securityContext"] == expected


def test_release_gives_the_chart_the_runbook_of_its_tag() -> None:
    (step,) = [
        step
        for job in yaml.safe_load(RELEASE.read_text())["jobs"].values()
        for step in job["steps"]
        if "RUNBOOK" in step.get("env", {})
    ]
    _, _, path = step["env"]["RUNBOOK"].partition("/blob/${{ github.ref_name }}/")
    assert (K8S.parent / path).is_file()
    assert ".monitoring.runbook = strenv(RUNBOOK)" in step["run"]


def model_server(values: dict[str, Any]) -> Any:
    return pod(named(render(values), "Deployment", "model-server"))["spec"]


def test_training_job_changed_pod_has_another_name() -> None:
    gpu, limited = {"training": {"gpu": True}}, {"rateLimit": "600/minute"}
    assert len({training_job(render(each))["metadata"]["name"] for each in ({}, gpu, limited)}) == 2


def test_training_with_feedback_starts_from_the_stable_version_by_schedule() -> None:
    values = merge(FEEDBACK, {"training": {"arguments": ["--epochs=4"]}})
    objects = render(values)
    (again,) = containers(pod(named(objects, "CronJob", "training")))
    assert 'digits train --feedback "$DIGITS_FEEDBACK" --from stable' in again["command"][2]
    assert again["command"][-1] == "--epochs=4"
    scheduled = render(merge(values, {"training": {"schedule": "1 2 * * *"}}))
    for rendered, suspended in ((objects, True), (scheduled, False)):
        assert named(rendered, "CronJob", "training")["spec"]["suspend"] is suspended
    # A command replaces that of the scheduled job.
    command = ["python", "/app/retrain.py"]
    objects = render(merge(FEEDBACK, {"modelName": "flowers", "training": {"command": command}}))
    assert containers(pod(named(objects, "CronJob", "training")))[0]["command"] == command
    assert not of_kind(objects, "Job")


def test_bucket_is_pulled_beside_the_model_server_and_verified_with_the_public_key() -> None:
    (puller,) = model_server(SIGNED)["initContainers"]
    # Sidecar: it runs on, and the model server waits for its startup probe.
    assert puller["restartPolicy"] == "Always"
    assert puller["startupProbe"]["exec"]["command"] == ["test", "-e", "/models/models.config"]
    objects = render(SIGNED)
    file = Path(environment(puller, objects)["DIGITS_MODEL_PUBLIC_KEY"])
    assert named(objects, "ConfigMap", "model-server-config")["data"][file.name] == PUBLIC_KEY


def test_traffic_reaches_the_gateways_without_a_rollout() -> None:
    shares = {"gateway": {"traffic": {"digits": {"canary": 0.05}}}}
    objects = render(shares)
    gateway = named(objects, "Deployment", "gateway")
    assert gateway == named(render({}), "Deployment", "gateway")
    (container,) = pod(gateway)["spec"]["containers"]
    file = environment(container, objects)["DIGITS_MODELS_TRAFFIC"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    (config,) = (
        volume["configMap"]["name"]
        for volume in pod(gateway)["spec"]["volumes"]
        if volume["name"] == mounts[str(Path(file).parent)]
    )
    assert traffic.parse(named(objects, "ConfigMap", config)["data"][Path(file).name]) == {
        "digits": {"canary": 0.05}
    }


def test_changed_configuration_rolls_the_pods() -> None:
    def checksums(values: dict[str, Any]) -> dict[str, Any]:
        services = of_kind(render(values), "Deployment")
        return {component(pod(item)): pod(item)["metadata"]["annotations"] for item in services}

    other_key = {"models": {"bucket": {"publicKey": f"{PUBLIC_KEY}# Another.\n"}}}
    before = checksums(SIGNED)
    assert checksums(merge(BUCKET, other_key))["model-server"] != before["model-server"]
    assert checksums(merge(BUCKET, {"modelServer": {"tls": True}}))["gateway"] != before["gateway"]


def public_routes(keys: Path) -> set[str]:
    """Return the gateway's routes that are for clients, those of feedback and labelling included."""
    keys.touch()
    settings = Settings(api_keys=keys, feedback=f"sqlite:///{keys.with_name('feedback.db')}")
    with greenlet_loop.keeping(settings) as client:
        rules = {rule.rule for rule in client.application.url_map.iter_rules()}
    assert "/label" in rules
    return rules - {"/livez", "/readyz", "/metrics"}


@pytest.mark.parametrize("kind", ["ingress", "gateway"])
def test_route_has_public_paths_only(kind: str, tmp_path: Path) -> None:
    objects = render({"route": {"kind": kind}})
    service = named(objects, "Service", "gateway")["spec"]["ports"][0]
    if kind == "ingress":
        (rule,) = named(objects, "Ingress", "gateway")["spec"]["rules"]
        paths = [(path["path"], path["pathType"] == "Prefix") for path in rule["http"]["paths"]]
        backends = [path["backend"]["service"] for path in rule["http"]["paths"]]
        assert all(backend == {"name": "gateway", "port": {"name": service["name"]}} for backend in backends)
    else:
        (rule,) = named(objects, "HTTPRoute", "gateway")["spec"]["rules"]
        paths = [(match["path"]["value"], match["path"]["type"] == "PathPrefix") for match in rule["matches"]]
        assert rule["backendRefs"] == [{"name": "gateway", "port": service["port"]}]

    def is_routed(route: str) -> bool:
        return any(route == path or (prefix and route.startswith(f"{path}/")) for path, prefix in paths)

    assert [route for route in public_routes(tmp_path / "keys") if not is_routed(route)] == []
    assert not any(is_routed(route) for route in ("/livez", "/readyz", "/metrics"))


def test_monitoring_has_the_alerts_and_the_dashboard_of_compose() -> None:
    runbook, labels = "https://wiki.example.com/it's\"]", {"release": "prometheus"}
    values = {"labels": labels, "runbook": runbook, "trafficFloor": 6}
    objects = render(merge(WATCHED, {"monitoring": values}))
    rule = named(objects, "PrometheusRule", "digits")
    address = '{{ or $externalLabels.runbook "docs/how-to/runbook.md" }}'
    alerts = (CONFIG / "alerts.yml").read_text()
    expected = yaml.safe_load(alerts.replace(address, runbook.replace("'", "''")))
    (floor,) = [rule for rule in expected["groups"][0]["rules"] if "traffic_floor" in rule.get("record", "")]
    floor |= {"expr": "vector(6)", "labels": {"namespace": "digits"}}
    assert rule["spec"] == expected
    dashboard = named(objects, "ConfigMap", "grafana-dashboard")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    text = (CONFIG / "grafana" / "dashboards" / "digits.json").read_text()
    assert dashboard["data"]["digits.json"].strip() == text.strip()
    monitors = {item["metadata"]["name"]: item for item in of_kind(objects, "ServiceMonitor")}
    scraped = yaml.safe_load((CONFIG / "prometheus.yml").read_text())["scrape_configs"]
    paths = {job["job_name"]: job.get("metrics_path", "/metrics") for job in scraped}
    for name, item in monitors.items():
        assert item["spec"]["endpoints"][0]["path"] == paths[name]
    for item in (rule, *monitors.values()):
        assert item["metadata"]["labels"]["release"] == "prometheus"


def test_queue_autoscaler_queries_exposed_metrics(tmp_path: Path) -> None:
    objects = render(merge(WATCHED, {"autoscaling": {"metric": "queue"}}))
    assert [item["metadata"]["name"] for item in of_kind(objects, "HorizontalPodAutoscaler")] == [
        "model-server"
    ]
    triggers = named(objects, "ScaledObject", "gateway")["spec"]["triggers"]
    queries = [trigger["metadata"]["query"] for trigger in triggers if trigger["type"] == "prometheus"]
    assert len(queries) == 2
    metrics = Metrics().exposition().decode()
    for query in queries:
        for family in re.findall(r"digits_(\w+?)(?:_sum|_total)\b", query):
            assert f"# TYPE digits_{family}" in metrics
    if not shutil.which("promtool"):
        pytest.skip("promtool is not installed; Debian's package prometheus has it")
    # Two gateways, scraped four times a minute: 75 seconds of waiting at each, 150 refusals at one.
    queue = 'digits_stage_duration_seconds_sum{stage="queue",namespace="digits",service="gateway",pod="%d"}'
    series = [
        *({"series": queue % pod, "values": "0+75x40"} for pod in (1, 2)),
        *(
            {
                "series": f'up{{job="gateway",namespace="digits",service="gateway",pod="{pod}"}}',
                "values": "1x40",
            }
            for pod in (1, 2)
        ),
        {
            "series": 'digits_overload_total{namespace="digits",service="gateway"}',
            "values": "0+150x20 3000x20",
        },
    ]
    tests = [
        # Five requests wait at each gateway.
        {"expr": queries[0], "eval_time": "5m", "exp_samples": [{"labels": "{}", "value": 10}]},
        # Ten refusals a second ask for two more gateways, none for no number.
        {"expr": queries[1], "eval_time": "4m", "exp_samples": [{"labels": "{}", "value": 4}]},
        {"expr": queries[1], "eval_time": "9m", "exp_samples": []},
    ]
    group = {"interval": "15s", "input_series": series, "promql_expr_test": tests}
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump({"tests": [group]}))
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_redis_command_starts_store_of_limits() -> None:
    if not shutil.which("redis-server"):
        pytest.skip("redis-server is not installed")
    (redis,) = containers(pod(named(render({"rateLimit": "1/hour"}), "Deployment", "redis")))
    port = free_port()
    command = [*redis["command"], "--port", str(port), "--bind", "127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: accepts(port), process)
            limiter = RateLimiter("1/hour", f"redis://127.0.0.1:{port}")
            greenlet_loop.call(limiter.check, "somebody")
            with pytest.raises(RateLimitedError):
                greenlet_loop.call(limiter.check, "somebody")
        finally:
            process.terminate()


def test_chart_installs_into_any_namespace_under_any_name() -> None:
    values = merge(WATCHED, {"autoscaling": {"metric": "queue"}})
    files = templates(values, name="b", namespace="other")
    texts = [text for path, text in files.items() if path.endswith(".yaml")]
    objects = [item for text in texts for item in yaml.safe_load_all(text) if item]
    assert {item["metadata"]["namespace"] for item in objects} == {"other"}
    for trigger in named(objects, "ScaledObject", "b-gateway")["spec"]["triggers"]:
        assert 'namespace="other"' in trigger["metadata"].get("query", 'namespace="other"')
