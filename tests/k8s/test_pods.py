"""Pods of k8s/: security, resources, images, flags, settings, probes, shutdown and scaling."""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from digit_client.artifact.models_folder import ModelsFolder
from digit_serving.gateway.settings import Settings
from digit_serving.model_server import flags
from tests.commands import parse
from tests.kustomize import K8S, TRAINING, built, containers, every_build, named, of_kind, pod, pods

ROOT = K8S.parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
SERVICES = ["gateway", "model-server"]


def service_container(name: str, build: str = "local") -> Any:
    """Return the only container of a service's pods."""
    (only,) = pod(named(built(build), "Deployment", name))["spec"]["containers"]
    return only


@pytest.mark.parametrize("name", every_build())
def test_pod_is_restricted(name: str) -> None:
    assert pods(built(name))
    for template in pods(built(name)):
        security = template["spec"]["securityContext"]
        assert security["runAsNonRoot"]
        assert (security["runAsUser"], security["runAsGroup"]) == (1000, 1000)
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert template["spec"]["automountServiceAccountToken"] is False
        assert template["spec"]["enableServiceLinks"] is False
        for container in containers(template):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


@pytest.mark.parametrize("name", every_build())
def test_pod_has_own_service_account_without_token(name: str) -> None:
    accounts = of_kind(built(name), "ServiceAccount")
    used = {template["spec"]["serviceAccountName"] for template in pods(built(name))}
    assert used == {account["metadata"]["name"] for account in accounts}
    assert not any(account["automountServiceAccountToken"] for account in accounts)


@pytest.mark.parametrize("name", every_build())
def test_container_has_resource_limits(name: str) -> None:
    for template in pods(built(name)):
        for container in containers(template):
            for kind in ("requests", "limits"):
                assert container["resources"][kind].keys() >= {"cpu", "memory"}
        for volume in template["spec"]["volumes"]:
            assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"]


@pytest.mark.parametrize("name", every_build())
def test_image_has_exact_tag(name: str) -> None:
    for template in pods(built(name)):
        for container in containers(template):
            image, _, tag = container["image"].rpartition(":")
            # An image of models has versions of its own.
            if "digits-" in image and not image.endswith("digits-model"):
                assert tag == VERSION
            assert re.fullmatch(r"\d[\d.]*(-gpu)?", tag)


def test_tensorflow_serving_images_match_serving_api() -> None:
    pinned = re.search(r"^tensorflow-serving-api==(\S+)", (ROOT / "constraints.txt").read_text(), re.M)
    assert pinned
    assert service_container("model-server")["image"] == f"tensorflow/serving:{pinned[1]}"
    on_gpu = service_container("model-server", "local+gpu-serving")
    assert on_gpu["image"] == f"tensorflow/serving:{pinned[1]}-gpu"


@pytest.mark.parametrize("name", every_build())
def test_model_server_flags_are_known(name: str) -> None:
    """TensorFlow Serving ignores an unknown flag after a line in its log."""
    server = service_container("model-server", name)
    assert server["command"] == ["/usr/bin/tensorflow_model_server"]
    options = flags.parse(server["args"])
    assert (options.port, options.rest_api_port) == (8500, 8501)
    assert options.allow_version_labels_for_unavailable_models
    assert options.enable_grpc_healthcheck_service
    assert not options.enable_profiler
    assert options.tensorflow_intra_op_parallelism <= int(server["resources"]["limits"]["cpu"])
    (config,) = [item for item in of_kind(built(name), "ConfigMap") if "monitoring.config" in item["data"]]
    assert Path(options.monitoring_config_file).name in config["data"]
    assert Path(options.model_config_file) == ModelsFolder(Path("/models")).config_path
    assert options.model_config_file_poll_wait_seconds <= 2


@pytest.mark.parametrize("name", every_build())
def test_digits_command_is_valid(name: str, tmp_path: Path) -> None:
    # A failed `sleep` ends a container's loop.
    for program, script in (("digits", 'echo "$@"'), ("sleep", "exit 1")):
        (tmp_path / program).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / program).chmod(0o755)
    for template in pods(built(name)):
        for container in containers(template):
            command = [*container.get("command", []), *container.get("args", [])]
            if not command or not re.search("digits-(gateway|training)", container["image"]):
                continue
            environment = {entry["name"]: "postgresql://db/digits" for entry in container.get("env", [])}
            environment["PATH"] = f"{tmp_path}:/usr/bin:/bin"
            printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            calls = printed.stdout.splitlines()
            assert calls
            for call in calls:
                parse(shlex.split(call))


@pytest.mark.parametrize("name", every_build())
def test_gateway_environment_is_valid_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {
        entry["name"]: entry.get("value", "") for entry in service_container("gateway", name)["env"]
    }
    assert environment.keys() <= {f"DIGITS_{field.upper()}" for field in Settings.model_fields}
    for variable, value in environment.items():
        # Mounted files exist only inside the pod.
        monkeypatch.setenv(variable, "" if value.startswith("/") else value)
    assert Settings().model_server == "dns:///model-server-grpc:8500"


@pytest.mark.parametrize("service", SERVICES)
def test_probes_use_expected_endpoints(service: str) -> None:
    probes = {
        kind: service_container(service)[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")
    }
    endpoints = {
        kind: probe["httpGet"]["path"]
        if "httpGet" in probe
        else next(key for key in ("tcpSocket", "grpc") if key in probe)
        for kind, probe in probes.items()
    }
    assert (
        endpoints
        == {
            "gateway": {"startup": "/livez", "readiness": "/readyz", "liveness": "/livez"},
            "model-server": {
                "startup": "tcpSocket",
                "readiness": "/v1/models/digits/labels/stable/metadata",
                "liveness": "grpc",
            },
        }[service]
    )
    startup_seconds = probes["startup"]["periodSeconds"] * probes["startup"]["failureThreshold"]
    assert startup_seconds >= (300 if service == "model-server" else 30)


def test_model_server_waits_for_models_config(tmp_path: Path) -> None:
    spec = pod(named(built("local"), "Deployment", "model-server"))["spec"]
    (waiter,), (server,) = spec["initContainers"], spec["containers"]
    assert waiter["image"] == server["image"]
    bash, option, script = waiter["command"]
    command = [bash, option, script.replace("/models/", f"{tmp_path}/")]
    with subprocess.Popen(command) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.5)
        (tmp_path / "models.config").touch()
        assert process.wait(10) == 0


@pytest.mark.parametrize("service", SERVICES)
def test_grace_period_covers_shutdown(service: str) -> None:
    spec = pod(named(built("local"), "Deployment", service))["spec"]
    pre_stop_seconds = service_container(service)["lifecycle"]["preStop"]["sleep"]["seconds"]
    if service == "gateway":
        # gunicorn gives requests in flight ten seconds.
        needed = pre_stop_seconds + 10
    else:
        arguments = dict(
            pair.split("=")
            for pair in flags.parse(service_container(service)["args"]).grpc_channel_arguments.split(",")
        )
        age, grace = (
            int(arguments[f"grpc.max_connection_{name}_ms"]) / 1000 for name in ("age", "age_grace")
        )
        # gRPC varies the age of connections by 10%.
        assert pre_stop_seconds >= 1.1 * age + grace
        needed = pre_stop_seconds
    assert needed < spec["terminationGracePeriodSeconds"] <= needed + 10


@pytest.mark.parametrize("name", ["local", "production"])
@pytest.mark.parametrize("service", SERVICES)
def test_deployment_is_autoscaled_spread_and_protected(name: str, service: str) -> None:
    deployment = named(built(name), "Deployment", service)
    # With a replica count, each `kubectl apply` would undo the autoscaler's count.
    assert "replicas" not in deployment["spec"]
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    scaler = named(built(name), "HorizontalPodAutoscaler", service)["spec"]
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": service}
    assert scaler["minReplicas"] >= (1 if name == "local" else 2)
    assert scaler["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= 300
    budget = named(built(name), "PodDisruptionBudget", service)["spec"]
    labels = pod(deployment)["metadata"]["labels"]
    assert budget["selector"]["matchLabels"].items() <= labels.items()
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    spread = pod(deployment)["spec"]["topologySpreadConstraints"]
    assert {constraint["topologyKey"] for constraint in spread} == {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    }
    for constraint in spread:
        assert constraint["labelSelector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("name", every_build())
def test_models_volume_is_writable_in_training_only(name: str) -> None:
    for template in pods(built(name)):
        is_training = template["metadata"]["labels"]["app.kubernetes.io/component"] in ("training", "retrain")
        for container in template["spec"]["containers"]:
            for mount in container["volumeMounts"]:
                if mount["mountPath"] == "/models":
                    assert mount.get("readOnly", False) is not is_training


def test_training_job_is_bounded() -> None:
    spec = named(built("local"), "Job", TRAINING)["spec"]
    assert spec["backoffLimit"] == 1
    assert spec["activeDeadlineSeconds"]
    assert pod({"spec": spec})["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize("name", every_build())
def test_job_of_the_build_does_not_expire_and_is_replaceable(name: str) -> None:
    """GitOps tools create an expired Job again, and Kubernetes refuses a changed one as immutable."""
    for job in of_kind(built(name), "Job"):
        assert job["metadata"]["name"].endswith(f"-{VERSION.replace('.', '-')}")
        assert "ttlSecondsAfterFinished" not in job["spec"]
        assert job["metadata"]["annotations"] == {
            "argocd.argoproj.io/hook": "Sync",
            "argocd.argoproj.io/hook-delete-policy": "BeforeHookCreation",
            "kustomize.toolkit.fluxcd.io/force": "enabled",
        }


def test_model_server_threads_are_enough_for_all_gateways_at_one_server() -> None:
    scaler = named(built("production"), "HorizontalPodAutoscaler", "gateway")["spec"]
    settings = Settings()
    # Two versions, stable and canary, get calls of their own.
    calls = scaler["maxReplicas"] * settings.workers * settings.max_inflight_calls * 2
    assert flags.parse(service_container("model-server", "production")["args"]).grpc_max_threads > calls


def test_models_volume_agrees_with_number_of_nodes() -> None:
    claim = named(built("production"), "PersistentVolumeClaim", "models")["spec"]
    assert claim["accessModes"] == ["ReadWriteMany"]
    on_one_node = built("production+one-node")
    claim = named(on_one_node, "PersistentVolumeClaim", "models")["spec"]
    assert claim["accessModes"] == ["ReadWriteOnce"]
    for template in pods(on_one_node):
        is_mounted = any("persistentVolumeClaim" in volume for volume in template["spec"]["volumes"])
        assert is_mounted == ("affinity" in template["spec"])
    assert named(on_one_node, "HorizontalPodAutoscaler", "model-server")["spec"]["maxReplicas"] == 1
