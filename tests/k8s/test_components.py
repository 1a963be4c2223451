"""Components of k8s/: the objects and fields that each one adds."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from digit_serving.gateway.errors import RateLimitedError
from digit_serving.gateway.metrics import Metrics
from digit_serving.gateway.rate_limit import RateLimiter
from digit_serving.gateway.settings import Settings
from digit_serving.model_server import flags
from tests import greenlet_loop
from tests.commands import parse
from tests.kustomize import (
    K8S,
    TRAINING,
    build,
    built,
    containers,
    copy_k8s,
    named,
    of_kind,
    pod,
    ray_pods,
)
from tests.processes import accepts, free_port, wait_until

CONFIG = K8S.parent / "serving" / "config"


def model_server(name: str) -> Any:
    return pod(named(built(name), "Deployment", "model-server"))["spec"]


def test_api_keys_component_mounts_secret() -> None:
    spec = pod(named(built("local+api-keys"), "Deployment", "gateway"))["spec"]
    (gateway,) = spec["containers"]
    assert {"name": "DIGITS_API_KEYS", "value": "/keys/keys"} in gateway["env"]
    assert {"name": "keys", "mountPath": "/keys", "readOnly": True} in gateway["volumeMounts"]
    assert {"name": "keys", "secret": {"secretName": "gateway-keys"}} in spec["volumes"]


@pytest.mark.parametrize("overlay", ["local", "production"])
def test_gpu_training_component_requests_gpu(overlay: str) -> None:
    spec = pod(named(built(f"{overlay}+gpu-training"), "Job", TRAINING))["spec"]
    (training,) = spec["containers"]
    assert training["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert training["image"].startswith("digits-training-gpu:")


def test_retrain_component_runs_in_training_jobs_pod() -> None:
    objects = build("local", "gpu-training", "retrain")
    job, retrain = (pod(named(objects, *key)) for key in (("Job", TRAINING), ("CronJob", "retrain")))
    (trainer,), (retrainer,) = containers(job), containers(retrain)
    assert {key for key in trainer if retrainer[key] != trainer[key]} == {"command", "args"}
    assert retrain["spec"] == {**job["spec"], "containers": [retrainer]}


@pytest.mark.parametrize(
    ("train_status", "status", "calls"),
    [(0, 0, ["train", "models"]), (4, 0, ["train", "models"]), (1, 1, ["train"])],
)
def test_retrain_component_ignores_refusal_but_no_error(
    train_status: int, status: int, calls: list[str], tmp_path: Path
) -> None:
    (retrainer,) = containers(pod(named(built("local+retrain"), "CronJob", "retrain")))
    assert retrainer["command"] == ["sh", "-ec"]
    script = f'echo "$1" >>{tmp_path}/calls; [ "$1" != train ] || exit {train_status}'
    (tmp_path / "digits").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "digits").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "DIGITS_FEEDBACK": "postgresql://db/feedback"}
    done = subprocess.run([*retrainer["command"], *retrainer["args"]], env=environment)
    assert done.returncode == status
    assert (tmp_path / "calls").read_text().split() == calls


@pytest.mark.parametrize(("kind", "name"), [("Deployment", "gateway"), ("CronJob", "retrain")])
def test_feedback_store_is_from_secret(kind: str, name: str) -> None:
    build_name = "local+feedback" if name == "gateway" else f"local+{name}"
    (container,) = containers(pod(named(built(build_name), kind, name)))
    secret = {"secretKeyRef": {"name": "feedback", "key": "url"}}
    assert {"name": "DIGITS_FEEDBACK", "valueFrom": secret} in container["env"]


@pytest.mark.parametrize(
    ("component", "setting"),
    [
        ("canary", {"name": "DIGITS_CANARY_SHARE", "value": "0.05"}),
        ("shadow", {"name": "DIGITS_SHADOW_LABEL", "value": "canary"}),
    ],
)
def test_canary_and_shadow_component_are_a_setting_of_the_gateway(
    component: str, setting: dict[str, str]
) -> None:
    before, after = build("production"), build("production", component)
    (gateway,) = containers(pod(named(after, "Deployment", "gateway")))
    gateway["env"].remove(setting)
    assert before == after


def test_redis_component_counts_in_redis() -> None:
    objects = built("production+redis")
    (gateway,) = containers(pod(named(objects, "Deployment", "gateway")))
    variables = {entry["name"]: entry.get("value") for entry in gateway["env"]}
    service = named(objects, "Service", "redis")
    port = service["spec"]["ports"][0]["port"]
    assert variables["DIGITS_RATE_LIMIT_STORE"] == f"redis://{service['metadata']['name']}:{port}"
    assert variables["DIGITS_RATE_LIMIT"]


def test_redis_component_arguments_start_store_of_limits() -> None:
    if not shutil.which("redis-server"):
        pytest.skip("redis-server is not installed")
    (redis,) = containers(pod(named(built("local+redis"), "Deployment", "redis")))
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


def test_keda_component_replaces_autoscaler() -> None:
    before = named(built("production"), "HorizontalPodAutoscaler", "gateway")["spec"]
    objects = built("production+keda")
    scalers = of_kind(objects, "HorizontalPodAutoscaler")
    assert [scaler["metadata"]["name"] for scaler in scalers] == ["model-server"]
    scaled = named(objects, "ScaledObject", "gateway")["spec"]
    assert scaled["scaleTargetRef"] == {"name": "gateway"}
    bounds = (scaled["minReplicaCount"], scaled["maxReplicaCount"])
    assert bounds == (before["minReplicas"], before["maxReplicas"])
    autoscaler = scaled["advanced"]["horizontalPodAutoscalerConfig"]
    assert autoscaler == {"name": "gateway", "behavior": before["behavior"]}


def test_keda_component_queries_exposed_metrics(tmp_path: Path) -> None:
    metrics = Metrics().exposition().decode()
    triggers = named(built("production+keda"), "ScaledObject", "gateway")["spec"]["triggers"]
    queries = [trigger["metadata"]["query"] for trigger in triggers if trigger["type"] == "prometheus"]
    assert len(queries) == 2
    for query in queries:
        for family in re.findall(r"digits_(\w+?)(?:_sum|_total)\b", query):
            assert f"# TYPE digits_{family}" in metrics
    if not shutil.which("promtool"):
        pytest.skip("promtool is not installed; Debian's package prometheus has it")
    scraped = 'namespace="digits",app_kubernetes_io_instance="digits"'
    # Two gateways, scraped four times a minute: 75 seconds of waiting at each, 150 refusals at one.
    queue = f'digits_stage_duration_seconds_sum{{stage="queue",{scraped},pod="%d"}}'
    series = [
        *({"series": queue % pod, "values": "0+75x40"} for pod in (1, 2)),
        *({"series": f'up{{job="gateway",{scraped},pod="{pod}"}}', "values": "1x40"} for pod in (1, 2)),
        {"series": f"digits_overload_total{{{scraped}}}", "values": "0+150x20 3000x20"},
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


def test_gpu_serving_component_batches_on_one_gpu_each() -> None:
    spec = model_server("local+gpu-serving")
    (server,) = spec["containers"]
    assert server["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    options = flags.parse(server["args"])
    assert options.enable_batching
    (config,) = [
        item for item in of_kind(built("local+gpu-serving"), "ConfigMap") if "batching.config" in item["data"]
    ]
    assert Path(options.batching_parameters_file).name in config["data"]


def test_model_server_tls_component_has_no_grpc_probe_and_mounts_files() -> None:
    spec = model_server("local+model-server-tls")
    (server,) = spec["containers"]
    assert flags.parse(server["args"]).ssl_config_file == "/tls/ssl.config"
    # The kubelet's gRPC probe has no TLS.
    assert server["livenessProbe"]["httpGet"] == {"path": "/monitoring/prometheus/metrics", "port": "rest"}
    assert {"name": "tls", "secret": {"secretName": "model-server-tls"}} in spec["volumes"]


@pytest.mark.parametrize(("kind", "name"), [("Deployment", "gateway"), ("CronJob", "retrain")])
def test_model_server_tls_component_gives_certificate_to_callers(kind: str, name: str) -> None:
    spec = pod(named(build("local", "retrain", "model-server-tls"), kind, name))["spec"]
    (caller,) = spec["containers"]
    variables = {entry["name"]: entry.get("value") for entry in caller["env"]}
    assert variables["DIGITS_MODEL_SERVER_CA"] == "/tls/ca.crt"
    assert variables["DIGITS_MODEL_SERVER_CERTIFICATE"] == "/tls/tls.crt"
    assert variables["DIGITS_MODEL_SERVER_KEY"] == "/tls/tls.key"
    assert {"name": "tls", "mountPath": "/tls", "readOnly": True} in caller["volumeMounts"]
    assert {"name": "tls", "secret": {"secretName": "gateway-tls"}} in spec["volumes"]


def test_image_pull_secrets_component_covers_every_pod() -> None:
    accounts = of_kind(build("production", "redis", "image-pull-secrets"), "ServiceAccount")
    assert {account["metadata"]["name"] for account in accounts} == {
        *("gateway", "model-server", "training", "redis"),
    }
    assert all(account["imagePullSecrets"] == [{"name": "registry"}] for account in accounts)


def test_production_overlay_takes_digest() -> None:
    name, digest = "registry.example.com/digits-gateway", f"sha256:{'0' * 64}"
    objects = build("production", images=[{"name": name, "digest": digest}])
    (gateway,) = containers(pod(named(objects, "Deployment", "gateway")))
    assert gateway["image"] == f"{name}@{digest}"


def test_retraining_has_image_of_training() -> None:
    objects = built("production+retrain")
    (job,), (other,) = (
        containers(pod(named(objects, *key))) for key in (("CronJob", "retrain"), ("Job", TRAINING))
    )
    assert job["image"] == other["image"]
    assert job["image"].startswith("registry.example.com/")


def test_drop_in_component_changes_only_image() -> None:
    before, after = model_server("local"), model_server("local+drop-in")
    for kind in ("initContainers", "containers"):
        (old,), (new,) = before[kind], after[kind]
        assert new["image"].startswith("digits-model-server:")
        assert {**old, "image": new["image"]} == new


@pytest.mark.parametrize("component", ["model-image", "model-image-copied", "model-bucket"])
def test_model_image_component_has_no_training_and_no_volume_claim(component: str) -> None:
    objects = built(f"production+{component}")
    assert not of_kind(objects, "Job", "CronJob", "PersistentVolumeClaim")
    assert not any(
        "persistentVolumeClaim" in volume for volume in model_server(f"production+{component}")["volumes"]
    )


def test_model_image_component_mounts_or_copies_image() -> None:
    mounted, copied = model_server("local+model-image"), model_server("local+model-image-copied")
    assert {"name": "models", "image": {"reference": "digits-model:1"}} in mounted["volumes"]
    (copier,) = copied["initContainers"]
    assert copier["image"] == "digits-model:1"
    assert "initContainers" not in mounted
    for spec in (mounted, copied):
        (server,) = spec["containers"]
        mount = {"name": "models", "mountPath": "/models", "subPath": "models", "readOnly": True}
        assert mount in server["volumeMounts"]


def test_model_bucket_component_pulls_beside_the_model_server() -> None:
    spec = model_server("production+model-bucket")
    (puller,), (server,) = spec["initContainers"], spec["containers"]
    (gateway,) = containers(pod(named(built("production"), "Deployment", "gateway")))
    assert puller["image"] == gateway["image"]
    # Sidecar: it runs on, and the model server waits for its startup probe.
    assert puller["restartPolicy"] == "Always"
    awaited = puller["startupProbe"]["exec"]["command"]
    assert awaited == ["test", "-e", flags.parse(server["args"]).model_config_file]
    assert {"name": "models", "mountPath": "/models"} in puller["volumeMounts"]


def test_model_bucket_component_pulls_again_after_a_failure(tmp_path: Path) -> None:
    (puller,) = model_server("local+model-bucket")["initContainers"]
    for program, script in (
        ("digits", f"echo pull >>{tmp_path}/calls; exit 1"),
        ("sleep", f"[ $(wc -l <{tmp_path}/calls) -lt 3 ]"),
    ):
        (tmp_path / program).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / program).chmod(0o755)
    subprocess.run(puller["command"], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=True)
    assert (tmp_path / "calls").read_text().split() == ["pull"] * 3


def ray_job() -> Any:
    return named(built("production+score"), "RayJob", "score")["spec"]


def test_score_component_entrypoint_is_valid_command() -> None:
    program, *arguments = shlex.split(ray_job()["entrypoint"])
    assert (program, arguments[0]) == ("digits", "score")
    options = parse(arguments)
    assert options["ray"] == "$RAY_ADDRESS"
    (gateway,) = containers(pod(named(built("production"), "Deployment", "gateway")))
    assert {"name": "DIGITS_MODEL_SERVER", "value": options["target"]} in gateway["env"]


def test_score_component_ray_version_is_pinned_one() -> None:
    pinned = re.search(r"^ray==(\S+)", (K8S.parent / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    assert ray_job()["rayClusterSpec"]["rayVersion"] == pinned[1]


def test_score_component_ends_cluster_and_is_bounded() -> None:
    assert ray_job()["shutdownAfterJobFinishes"]
    assert ray_job()["activeDeadlineSeconds"]


def test_score_component_gives_storage_keys_to_ray_nodes_only() -> None:
    submitter, *nodes = ray_pods(named(built("production+score"), "RayJob", "score"))
    assert "envFrom" not in submitter["spec"]["containers"][0]
    for node in nodes:
        assert node["spec"]["containers"][0]["envFrom"] == [{"secretRef": {"name": "score-s3"}}]


def test_score_component_scores_on_workers_only() -> None:
    assert ray_job()["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_score_component_takes_image_of_registry() -> None:
    image = {"name": "digits-score", "newName": "registry.example.com/digits-score"}
    job = named(build("production", "score", images=[image]), "RayJob", "score")
    images = {container["image"] for template in ray_pods(job) for container in containers(template)}
    assert {name.rpartition(":")[0] for name in images} == {image["newName"]}


@pytest.mark.parametrize("overlay", ["local", "production"])
def test_own_model_component_has_the_name_in_one_place(overlay: str, tmp_path: Path) -> None:
    k8s, name = copy_k8s(tmp_path), "my-flowers_2"
    component = k8s / "components" / "own-model" / "kustomization.yaml"
    assert component.read_text().count("flowers") == 1
    component.write_text(component.read_text().replace("flowers", name))
    objects = build(overlay, "model-image", "own-model", k8s=k8s)
    (gateway,), (server,) = (
        containers(pod(named(objects, "Deployment", workload))) for workload in ("gateway", "model-server")
    )
    assert {"name": "DIGITS_MODEL_NAME", "value": name} in gateway["env"]
    assert server["readinessProbe"]["httpGet"]["path"] == f"/v1/models/{name}/labels/stable/metadata"


def public_routes() -> set[str]:
    """Return the gateway's routes that are for clients."""
    rules = {rule.rule for rule in greenlet_loop.app(Settings()).url_map.iter_rules()}
    return rules - {"/livez", "/readyz", "/metrics"}


def is_routed_by(path: str, prefix: bool, route: str) -> bool:
    return route == path or (prefix and route.startswith(f"{path}/"))


def test_ingress_routes_public_paths_only() -> None:
    ingress = named(built("production+ingress"), "Ingress", "gateway")["spec"]
    (rule,) = ingress["rules"]
    assert ingress["ingressClassName"]
    assert ingress["tls"] == [{"hosts": [rule["host"]], "secretName": "digits-tls"}]
    assert_routes_public_paths_only(
        [(path["path"], path["pathType"] == "Prefix") for path in rule["http"]["paths"]]
    )
    service = named(built("production"), "Service", "gateway")
    for path in rule["http"]["paths"]:
        assert path["backend"]["service"] == {
            "name": "gateway",
            "port": {"name": service["spec"]["ports"][0]["name"]},
        }


def test_http_route_routes_public_paths_only() -> None:
    (rule,) = named(built("production+gateway-api"), "HTTPRoute", "gateway")["spec"]["rules"]
    assert_routes_public_paths_only(
        [(match["path"]["value"], match["path"]["type"] == "PathPrefix") for match in rule["matches"]]
    )
    service = named(built("production"), "Service", "gateway")
    assert rule["backendRefs"] == [{"name": "gateway", "port": service["spec"]["ports"][0]["port"]}]


def assert_routes_public_paths_only(paths: list[tuple[str, bool]]) -> None:
    def is_routed(route: str) -> bool:
        return any(is_routed_by(path, prefix, route) for path, prefix in paths)

    assert all(is_routed(route) for route in public_routes())
    assert not any(is_routed(route) for route in ("/livez", "/readyz", "/metrics"))


def test_monitoring_component_has_alerts_of_prometheus_configuration() -> None:
    rule = named(built("local+monitoring"), "PrometheusRule", "digits")
    assert rule["spec"] == yaml.safe_load((CONFIG / "alerts.yml").read_text())


def test_monitoring_component_has_dashboard_of_grafana_configuration() -> None:
    (dashboard,) = [
        item for item in of_kind(built("local+monitoring"), "ConfigMap") if "digits.json" in item["data"]
    ]
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert dashboard["data"]["digits.json"] == (CONFIG / "grafana" / "dashboards" / "digits.json").read_text()


def test_monitoring_component_scrapes_jobs_of_prometheus_configuration() -> None:
    objects = built("local+monitoring")
    jobs = {}
    for monitor in of_kind(objects, "ServiceMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"]
        (endpoint,) = monitor["spec"]["endpoints"]
        (service,) = [
            item
            for item in of_kind(objects, "Service")
            if selector.items() <= item["metadata"]["labels"].items()
            and endpoint["port"] in {port["name"] for port in item["spec"]["ports"]}
        ]
        jobs[service["metadata"]["labels"][monitor["spec"]["jobLabel"]]] = endpoint["path"]
    scraped = yaml.safe_load((CONFIG / "prometheus.yml").read_text())["scrape_configs"]
    assert jobs == {job["job_name"]: job.get("metrics_path", "/metrics") for job in scraped}
