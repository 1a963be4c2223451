"""Components of k8s/: the objects and fields that each one adds."""

import re
import shlex
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import text_format

from digit_client.tfserving.protos import ModelServerConfig
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.kustomize import K8S, Object, build, built, containers, copy_k8s, named, of_kind, pod, ray_pods

CONFIG = K8S.parent / "serving" / "config"


def model_server(name: str) -> Any:
    return pod(named(built(name), "Deployment", "model-server"))["spec"]


def test_api_keys_component_mounts_secret() -> None:
    spec = pod(named(built("local+api-keys"), "Deployment", "gateway"))["spec"]
    (gateway,) = spec["containers"]
    assert {"name": "DIGITS_API_KEYS", "value": "/keys/keys"} in gateway["env"]
    assert {"name": "keys", "mountPath": "/keys", "readOnly": True} in gateway["volumeMounts"]
    assert {"name": "keys", "secret": {"secretName": "gateway-keys"}} in spec["volumes"]


def test_gpu_training_component_requests_gpu() -> None:
    spec = pod(named(built("local+gpu-training"), "Job", "training"))["spec"]
    (training,) = spec["containers"]
    assert training["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert training["image"].startswith("digits-training-gpu:")


def test_retrain_component_runs_training_job_without_if_needed() -> None:
    objects = build("local", "gpu-training", "retrain")
    job, retrain = (pod(named(objects, *key)) for key in (("Job", "training"), ("CronJob", "retrain")))
    assert job["spec"]["containers"][0].pop("args") == ["--if-needed"]
    assert retrain == job


def test_drop_in_component_changes_only_image() -> None:
    before, after = model_server("local"), model_server("local+drop-in")
    (old,), (new,) = before["containers"], after["containers"]
    assert new["image"].startswith("digits-model-server:")
    assert {**old, "image": new["image"]} == new


@pytest.mark.parametrize("component", ["model-image", "model-image-copied"])
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


def ray_job() -> Any:
    return named(built("production+score"), "RayJob", "score")["spec"]


def test_score_component_entrypoint_is_valid_command() -> None:
    program, subcommand, *arguments = shlex.split(ray_job()["entrypoint"])
    assert (program, subcommand) == ("digits", "score")
    (entry_point,) = entry_points(group="digits.commands", name=subcommand)
    options = entry_point.load().make_context(subcommand, arguments).params
    assert options["cluster"] == "auto"
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


def served_model(objects: Sequence[Object]) -> Any:
    """Return the only entry of the model servers' models.config."""
    (config_map,) = [item for item in of_kind(objects, "ConfigMap") if "models.config" in item["data"]]
    text = config_map["data"]["models.config"]
    (model,) = text_format.Parse(text, ModelServerConfig()).model_config_list.config
    return model


def versions_and_labels(name: str) -> tuple[set[int], dict[str, int]]:
    """Return the versions in the model servers' models.config, and its labels."""
    model = served_model(built(name))
    return set(model.model_version_policy.specific.versions), dict(model.version_labels)


def test_canary_overlay_loads_canary_beside_stable() -> None:
    stable_versions, stable_labels = versions_and_labels("production")
    assert stable_versions == set(stable_labels.values())
    assert stable_labels.keys() == {"stable"}
    versions, labels = versions_and_labels("canary")
    canary = labels.pop("canary")
    assert labels == stable_labels
    assert versions == stable_versions | {canary} > stable_versions


@pytest.mark.parametrize("overlay", ["local", "production"])
def test_own_model_component_has_the_name_in_one_place(overlay: str, tmp_path: Path) -> None:
    k8s, name = copy_k8s(tmp_path), "my-flowers_2"
    component = k8s / "components" / "own-model" / "kustomization.yaml"
    assert component.read_text().count("flowers") == 1
    component.write_text(component.read_text().replace("flowers", name))
    objects = build(overlay, "model-image", "own-model", k8s=k8s)
    model = served_model(objects)
    assert (model.name, model.base_path) == (name, f"/models/{name}")
    assert dict(model.version_labels) == {"stable": 1}
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
        (service,) = [
            item
            for item in of_kind(objects, "Service")
            if selector.items() <= item["metadata"]["labels"].items()
        ]
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
        jobs[service["metadata"]["name"]] = endpoint["path"]
    scraped = yaml.safe_load((CONFIG / "prometheus.yml").read_text())["scrape_configs"]
    # A pushgateway is the cluster's.
    own = [job for job in scraped if job["job_name"] != "pushgateway"]
    assert jobs == {job["job_name"]: job.get("metrics_path", "/metrics") for job in own}
