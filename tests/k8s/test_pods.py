"""What every pod keeps to."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from digit_serving.gateway.settings import Settings
from digit_serving.model_server import flags
from tests.kustomize import K8S, built, containers, every, named, of_kind, pod, pods

ROOT = K8S.parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
SERVICES = ["gateway", "model-server"]


def container(name: str, build: str = "local") -> Any:
    """The only container of a service's pods."""
    (only,) = pod(named(built(build), "Deployment", name))["spec"]["containers"]
    return only


@pytest.mark.parametrize("name", every())
def test_pods_have_no_rights(name: str) -> None:
    assert pods(built(name))
    for each in pods(built(name)):
        security = each["spec"]["securityContext"]
        assert security["runAsNonRoot"]
        assert (security["runAsUser"], security["runAsGroup"]) == (1000, 1000)
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert each["spec"]["automountServiceAccountToken"] is False
        assert each["spec"]["enableServiceLinks"] is False
        for one in containers(each):
            assert one["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


@pytest.mark.parametrize("name", every())
def test_pods_have_accounts_of_their_own_without_tokens(name: str) -> None:
    accounts = {each["metadata"]["name"]: each for each in of_kind(built(name), "ServiceAccount")}
    used = {each["spec"]["serviceAccountName"] for each in pods(built(name))}
    assert used == accounts.keys()
    assert not any(each["automountServiceAccountToken"] for each in accounts.values())


@pytest.mark.parametrize("name", every())
def test_containers_are_bounded(name: str) -> None:
    for each in pods(built(name)):
        for one in containers(each):
            for what in ("requests", "limits"):
                assert one["resources"][what].keys() >= {"cpu", "memory"}
        for volume in each["spec"]["volumes"]:
            assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"]


@pytest.mark.parametrize("name", every())
def test_images_have_exact_tags(name: str) -> None:
    for each in pods(built(name)):
        for one in containers(each):
            image, _, tag = one["image"].rpartition(":")
            if "digits-model" not in image or "server" in image:
                assert tag == ("2.20.0" if image == "tensorflow/serving" else VERSION)
            assert re.fullmatch(r"\d[\d.]*", tag)


def test_tensorflow_serving_is_that_of_the_protocol() -> None:
    pinned = re.search(r"^tensorflow-serving-api==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert pinned
    assert container("model-server")["image"] == f"tensorflow/serving:{pinned[1]}"


@pytest.mark.parametrize("name", every())
def test_tensorflow_serving_knows_every_flag(name: str) -> None:
    """It would only print the name of one that it doesn't know, and run without."""
    server = container("model-server", name)
    assert server["command"] == ["/usr/bin/tensorflow_model_server"]
    options = flags.parse(server["args"])
    assert (options.port, options.rest_api_port) == (8500, 8501)
    assert options.allow_version_labels_for_unavailable_models
    assert options.enable_grpc_healthcheck_service
    assert not options.enable_profiler
    assert options.tensorflow_intra_op_parallelism <= int(server["resources"]["limits"]["cpu"])
    (config,) = [each for each in of_kind(built(name), "ConfigMap") if "models.config" in each["data"]]
    for file in (options.model_config_file, options.monitoring_config_file):
        assert Path(file).name in config["data"]


@pytest.mark.parametrize("name", every())
def test_the_gateway_takes_its_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {each["name"]: each["value"] for each in container("gateway", name)["env"]}
    assert told.keys() <= {f"DIGITS_{field.upper()}" for field in Settings.model_fields}
    for variable, value in told.items():
        monkeypatch.setenv(variable, value)
    # A file of the pod's.
    monkeypatch.setenv("DIGITS_API_KEYS", "")
    assert Settings().model_server == "dns:///model-server-grpc:8500"


@pytest.mark.parametrize("service", SERVICES)
def test_probes_ask_what_they_should(service: str) -> None:
    probes = {kind: container(service)[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")}
    asked = {
        kind: probe["httpGet"]["path"]
        if "httpGet" in probe
        else next(key for key in ("tcpSocket", "grpc") if key in probe)
        for kind, probe in probes.items()
    }
    assert (
        asked
        == {
            "gateway": {"startup": "/livez", "readiness": "/readyz", "liveness": "/livez"},
            "model-server": {
                "startup": "tcpSocket",
                "readiness": "/v1/models/digits/metadata",
                "liveness": "grpc",
            },
        }[service]
    )
    patience = probes["startup"]["periodSeconds"] * probes["startup"]["failureThreshold"]
    # The first model server waits for the training job.
    assert patience >= (1800 if service == "model-server" else 30)


@pytest.mark.parametrize("service", SERVICES)
def test_a_pod_that_goes_has_time_for_what_it_does(service: str) -> None:
    spec = pod(named(built("local"), "Deployment", service))["spec"]
    asleep = container(service)["lifecycle"]["preStop"]["sleep"]["seconds"]
    if service == "gateway":
        # As long as its processes finish what they began.
        needed = asleep + 10
    else:
        arguments = dict(
            pair.split("=")
            for pair in flags.parse(container(service)["args"]).grpc_channel_arguments.split(",")
        )
        age, grace = (
            int(arguments[f"grpc.max_connection_{each}_ms"]) / 1000 for each in ("age", "age_grace")
        )
        # gRPC spreads the ends of connections by a tenth.
        assert asleep >= 1.1 * age + grace
        needed = asleep
    assert needed < spec["terminationGracePeriodSeconds"] <= needed + 10


@pytest.mark.parametrize("name", ["local", "production", "canary"])
@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_scaled_spread_and_never_without_a_pod(name: str, service: str) -> None:
    deployment = named(built(name), "Deployment", service)
    # Else each `kubectl apply` would undo what the autoscaler did.
    assert "replicas" not in deployment["spec"]
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    scaler = named(built(name), "HorizontalPodAutoscaler", service)["spec"]
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": service}
    assert scaler["minReplicas"] >= (1 if name == "local" else 2)
    assert scaler["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= 300
    budget = named(built(name), "PodDisruptionBudget", service)["spec"]
    labels = pod(deployment)["metadata"]["labels"]
    assert budget["selector"]["matchLabels"].items() <= labels.items()
    spread = pod(deployment)["spec"]["topologySpreadConstraints"]
    assert {each["topologyKey"] for each in spread} == {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    }
    assert all(each["labelSelector"]["matchLabels"].items() <= labels.items() for each in spread)


@pytest.mark.parametrize("name", every())
def test_only_training_may_write_models(name: str) -> None:
    for each in pods(built(name)):
        mounts = [mount for one in each["spec"]["containers"] for mount in one["volumeMounts"]]
        for mount in mounts:
            if mount["mountPath"] == "/models":
                training = each["metadata"]["labels"]["app.kubernetes.io/component"] == "training"
                assert mount.get("readOnly", False) is not training


def test_the_training_job_ends_and_goes() -> None:
    spec = named(built("local"), "Job", "training")["spec"]
    assert spec["backoffLimit"] == 1
    assert spec["activeDeadlineSeconds"]
    assert spec["ttlSecondsAfterFinished"]
    assert pod({"spec": spec})["spec"]["restartPolicy"] == "Never"
