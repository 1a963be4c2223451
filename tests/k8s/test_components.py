"""What each component brings."""

from typing import Any

import pytest
import yaml
from google.protobuf import text_format

from digit_client.tfserving.protos import ModelServerConfig
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.kustomize import K8S, build, built, named, of_kind, pod

CONFIG = K8S.parent / "serving" / "config"


def model_server(name: str) -> Any:
    return pod(named(built(name), "Deployment", "model-server"))["spec"]


def test_keys_come_from_a_secret() -> None:
    spec = pod(named(built("local+api-keys"), "Deployment", "gateway"))["spec"]
    (gateway,) = spec["containers"]
    assert {"name": "DIGITS_API_KEYS", "value": "/keys/keys"} in gateway["env"]
    assert {"name": "keys", "mountPath": "/keys", "readOnly": True} in gateway["volumeMounts"]
    assert {"name": "keys", "secret": {"secretName": "gateway-keys"}} in spec["volumes"]


def test_gpu_training_asks_for_a_gpu() -> None:
    spec = pod(named(built("local+gpu-training"), "Job", "training"))["spec"]
    (training,) = spec["containers"]
    assert training["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert training["image"].startswith("digits-training-gpu:")


def test_retraining_runs_the_training_job_again_whatever_is_there() -> None:
    objects = build("local", "gpu-training", "retrain")
    job, again = (pod(named(objects, *key)) for key in (("Job", "training"), ("CronJob", "retrain")))
    assert job["spec"]["containers"][0].pop("args") == ["--if-needed"]
    assert again == job


def test_the_drop_in_takes_the_place_of_tensorflow_serving_as_it_is() -> None:
    before, after = model_server("local"), model_server("local+drop-in")
    (old,), (new,) = before["containers"], after["containers"]
    assert new["image"].startswith("digits-model-server:")
    assert {**old, "image": new["image"]} == new


@pytest.mark.parametrize("component", ["model-image", "model-image-copied"])
def test_a_model_as_an_image_needs_no_training_and_no_shared_disk(component: str) -> None:
    objects = built(f"production+{component}")
    assert not of_kind(objects, "Job", "CronJob", "PersistentVolumeClaim")
    assert not any(
        "persistentVolumeClaim" in volume for volume in model_server(f"production+{component}")["volumes"]
    )


def test_an_image_is_mounted_or_copied() -> None:
    mounted, copied = model_server("local+model-image"), model_server("local+model-image-copied")
    assert {"name": "models", "image": {"reference": "digits-model:1"}} in mounted["volumes"]
    (copier,) = copied["initContainers"]
    assert copier["image"] == "digits-model:1"


def models(name: str) -> tuple[set[int], dict[str, int]]:
    """The versions that model servers load, and the labels."""
    (configuration,) = [each for each in of_kind(built(name), "ConfigMap") if "models.config" in each["data"]]
    text = configuration["data"]["models.config"]
    (model,) = text_format.Parse(text, ModelServerConfig()).model_config_list.config
    return set(model.model_version_policy.specific.versions), dict(model.version_labels)


def test_a_canary_is_loaded_beside_what_is_stable_in_production() -> None:
    versions, labels = models("production")
    assert versions == set(labels.values())
    assert labels.keys() == {"stable"}
    more, labels_with_canary = models("canary")
    canary = labels_with_canary.pop("canary")
    assert labels_with_canary == labels
    assert more == versions | {canary} > versions


def public_routes() -> set[str]:
    """Those of the gateway that are for its callers."""
    rules = {rule.rule for rule in greenlet_loop.app(Settings()).url_map.iter_rules()}
    return rules - {"/livez", "/readyz", "/metrics"}


def leads_to_the_gateway(path: str, prefix: bool, route: str) -> bool:
    return route == path or (prefix and route.startswith(f"{path}/"))


def test_the_ingress_leads_to_what_is_for_callers_only() -> None:
    ingress = named(built("production+ingress"), "Ingress", "gateway")["spec"]
    (rule,) = ingress["rules"]
    assert ingress["tls"] == [{"hosts": [rule["host"]], "secretName": "digits-tls"}]
    paths = [(each["path"], each["pathType"] == "Prefix") for each in rule["http"]["paths"]]
    check_paths(paths)
    service = named(built("production"), "Service", "gateway")
    for each in rule["http"]["paths"]:
        assert each["backend"]["service"] == {
            "name": "gateway",
            "port": {"name": service["spec"]["ports"][0]["name"]},
        }


def test_the_http_route_leads_to_what_is_for_callers_only() -> None:
    (rule,) = named(built("production+gateway-api"), "HTTPRoute", "gateway")["spec"]["rules"]
    check_paths([(each["path"]["value"], each["path"]["type"] == "PathPrefix") for each in rule["matches"]])
    service = named(built("production"), "Service", "gateway")
    assert rule["backendRefs"] == [{"name": "gateway", "port": service["spec"]["ports"][0]["port"]}]


def check_paths(paths: list[tuple[str, bool]]) -> None:
    def is_open(route: str) -> bool:
        return any(leads_to_the_gateway(path, prefix, route) for path, prefix in paths)

    assert all(is_open(route) for route in public_routes())
    assert not any(is_open(route) for route in ("/livez", "/readyz", "/metrics"))


def test_the_alerts_are_those_of_prometheus() -> None:
    rule = named(built("local+monitoring"), "PrometheusRule", "digits")
    assert rule["spec"] == yaml.safe_load((CONFIG / "alerts.yml").read_text())


def test_the_dashboard_is_that_of_grafana() -> None:
    (dashboard,) = [
        each for each in of_kind(built("local+monitoring"), "ConfigMap") if "digits.json" in each["data"]
    ]
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert dashboard["data"]["digits.json"] == (CONFIG / "grafana" / "dashboards" / "digits.json").read_text()


def test_what_compose_scrapes_is_scraped_under_the_same_names() -> None:
    objects = built("local+monitoring")
    jobs = {}
    for monitor in of_kind(objects, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        (service,) = [
            each
            for each in of_kind(objects, "Service")
            if wanted.items() <= each["metadata"]["labels"].items()
        ]
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
        jobs[service["metadata"]["name"]] = endpoint["path"]
    scraped = yaml.safe_load((CONFIG / "prometheus.yml").read_text())["scrape_configs"]
    assert jobs == {each["job_name"]: each.get("metrics_path", "/metrics") for each in scraped}
