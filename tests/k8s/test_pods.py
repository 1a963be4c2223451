"""Pods of every installation: security, resources, images, flags, commands, settings, probes and shutdown."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from digit_serving.gateway.settings import Settings
from digit_serving.model_server import flags
from tests.commands import fake_digits, parse
from tests.k8s.conftest import Installation
from tests.manifests import (
    K8S,
    component,
    containers,
    environment,
    named,
    of_kind,
    overlay,
    pod,
    pods,
)

ROOT = K8S.parent
OWN_IMAGE = re.compile(r"(^|/)digits-(gateway|training|training-gpu):")
TLS_VARIABLES = {
    "DIGITS_MODEL_SERVER_CA": "/tls/ca.crt",
    "DIGITS_MODEL_SERVER_CERTIFICATE": "/tls/tls.crt",
    "DIGITS_MODEL_SERVER_KEY": "/tls/tls.key",
}


def service(objects: Any, name: str) -> Any:
    """Return the only container of a service's pods."""
    (only,) = pod(named(objects, "Deployment", name))["spec"]["containers"]
    return only


def test_training_pod_makes_its_own_folders_on_the_volume(installation: Installation) -> None:
    # The kubelet makes the folder of a subPath as root, and volumes such as NFS ignore fsGroup.
    for job in of_kind(installation.objects, "Job", "CronJob"):
        for container in containers(pod(job)):
            mounts = [mount for mount in container["volumeMounts"] if mount["name"] == "models"]
            assert mounts == [{"name": "models", "mountPath": "/models"}]
            assert {"name": "DIGITS_MODELS", "value": "/models"} in container["env"]
            # Reports go to `runs` of the working directory; the file system of the container is read-only.
            assert container["name"] == "releases" or container["workingDir"] == "/models"


def test_pod_is_restricted(installation: Installation) -> None:
    for template in pods(installation.objects):
        security = template["spec"]["securityContext"]
        assert security["runAsNonRoot"]
        user = installation.values["runAsUser"]
        assert (security.get("runAsUser"), security.get("runAsGroup")) == (user, user)
        assert security.get("fsGroup", user) == user
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert template["spec"]["automountServiceAccountToken"] is False
        assert template["spec"]["enableServiceLinks"] is False
        for container in containers(template):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
    (account,) = of_kind(installation.objects, "ServiceAccount")
    assert account["automountServiceAccountToken"] is False
    names = [secret["name"] for secret in account.get("imagePullSecrets", [])]
    assert names == installation.values["imagePullSecrets"]


def test_container_has_resource_limits(installation: Installation) -> None:
    for template in pods(installation.objects):
        for container in containers(template):
            assert container.get("imagePullPolicy", "") in ("", installation.values["imagePullPolicy"])
            for kind in ("requests", "limits"):
                assert container["resources"][kind].keys() >= {"cpu", "memory"}
        for volume in template["spec"]["volumes"]:
            assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"]


def test_gpu_is_limited_tolerated_and_used(installation: Installation) -> None:
    for template in pods(installation.objects):
        names = {"model-server": "modelServer", "training": "training"}
        wanted = component(template) in names and installation.values[names[component(template)]]["gpu"]
        container = containers(template)[-1]
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) == wanted
        assert ("tolerations" in template["spec"]) == wanted
        if component(template) in names:
            assert ("-gpu" in container["image"]) == wanted
    assert (
        flags.parse(service(installation.objects, "model-server")["args"]).enable_batching
        == (installation.values["modelServer"]["gpu"])
    )


def test_model_server_flags_are_known_and_enough_for_all_gateways(installation: Installation) -> None:
    """TensorFlow Serving ignores an unknown flag after a line in its log."""
    server = service(installation.objects, "model-server")
    pinned = re.search(r"^tensorflow-serving-api==(\S+)", (ROOT / "constraints.txt").read_text(), re.M)
    assert pinned
    suffix = "-gpu" if installation.values["modelServer"]["gpu"] else ""
    assert server["image"] == f"tensorflow/serving:{pinned[1]}{suffix}"
    options = flags.parse(server["args"])
    assert options.tensorflow_intra_op_parallelism <= int(server["resources"]["limits"]["cpu"])
    config = named(installation.objects, "ConfigMap", "model-server-config")["data"]
    for file in (options.monitoring_config_file, options.batching_parameters_file):
        assert not file or Path(file).name in config
    folder = ROOT / "serving" / "config"
    for path in [*folder.glob("*.config"), folder / "start-model-server.sh"]:
        assert config[path.name] == path.read_text()
    settings = installation.values["gateway"]["settings"]
    workers = int(settings.get("DIGITS_WORKERS", Settings().workers))
    # All gateways may call one server. Two versions, stable and canary, get calls of their own.
    calls = installation.values["gateway"]["replicas"]["max"] * workers * Settings().max_inflight_calls * 2
    assert options.grpc_max_threads > calls


def test_digits_command_is_valid(installation: Installation, tmp_path: Path) -> None:
    variables = {"DIGITS_FEEDBACK": "postgresql://db/digits", **fake_digits(tmp_path)}
    # A failed `sleep` ends a container's loop.
    (tmp_path / "sleep").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "sleep").chmod(0o755)
    for template in pods(installation.objects):
        for container in containers(template):
            command = [*container.get("command", []), *container.get("args", [])]
            if not command or not OWN_IMAGE.search(container["image"]):
                continue
            env = environment(container, installation.objects) | variables
            printed = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
            assert printed.stdout
            for call in printed.stdout.splitlines():
                parse(shlex.split(call))


def test_gateway_environment_is_valid_settings(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = environment(service(installation.objects, "gateway"), installation.objects)
    known = {f"DIGITS_{field.upper()}" for field in Settings.model_fields}
    assert variables.keys() <= known | {"OTEL_EXPORTER_OTLP_ENDPOINT"}
    for variable, value in variables.items():
        # Mounted files exist only inside the pod.
        monkeypatch.setenv(variable, "" if value.startswith("/") else value)
    settings = Settings()
    values = installation.values
    assert settings.model_server == "dns:///model-server-grpc:8500"
    assert settings.model_name == values["modelName"]
    assert settings.rate_limit == values["rateLimit"]
    # Behind a route, callers without keys would share one address, and so one limit.
    assert settings.trusted_proxies == (
        values["route"]["proxies"] if values["route"]["kind"] != "none" else 0
    )
    for variable, value in values["gateway"]["settings"].items():
        assert variables[variable] == value
    probe = service(installation.objects, "model-server")["readinessProbe"]["httpGet"]["path"]
    assert probe == f"/v1/models/{settings.model_name}/labels/stable/metadata"


def test_files_of_the_environment_are_mounted(installation: Installation) -> None:
    for template in pods(installation.objects):
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        for container in containers(template):
            mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
            for value in environment(container, installation.objects).values():
                assert not value.startswith("/") or {value, str(Path(value).parent)} & mounts.keys()


def test_every_caller_of_the_model_server_has_its_tls(installation: Installation) -> None:
    encrypted = installation.values["modelServer"]["tls"]
    callers = set()
    for template in pods(installation.objects):
        for container in containers(template):
            variables = environment(container, installation.objects)
            if "DIGITS_MODEL_SERVER" in variables:
                callers.add(component(template))
                assert (TLS_VARIABLES.items() <= variables.items()) == encrypted
    assert callers == ({"gateway", "training", "releases"} if installation.has_volume else {"gateway"})
    server = service(installation.objects, "model-server")
    assert flags.parse(server["args"]).ssl_config_file == ("/tls/ssl.config" if encrypted else "")
    # The kubelet's gRPC probe has no TLS.
    assert ("grpc" in server["livenessProbe"]) != encrypted


def test_grace_period_covers_shutdown(installation: Installation) -> None:
    for name in ("gateway", "model-server"):
        spec = pod(named(installation.objects, "Deployment", name))["spec"]
        container = service(installation.objects, name)
        pre_stop_seconds = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        if name == "gateway":
            # gunicorn gives requests in flight ten seconds, and kills its workers after five more.
            needed = pre_stop_seconds + 15
        else:
            options = flags.parse(container["args"])
            arguments = dict(pair.split("=") for pair in options.grpc_channel_arguments.split(","))
            age, grace = (
                int(arguments[f"grpc.max_connection_{key}_ms"]) / 1000 for key in ("age", "age_grace")
            )
            deadline = installation.values["gateway"]["settings"].get("DIGITS_DEADLINE", Settings().deadline)
            assert grace >= float(deadline)
            # gRPC varies the age of connections by 10%.
            assert pre_stop_seconds >= 1.1 * age + grace
            needed = pre_stop_seconds
        assert needed <= spec["terminationGracePeriodSeconds"] <= needed + 15
        probe = container["startupProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] >= (300 if name == "model-server" else 30)


def test_models_are_writable_for_those_who_publish_only(installation: Installation) -> None:
    writers = set()
    for template in pods(installation.objects):
        for container in containers(template):
            for mount in container["volumeMounts"]:
                if mount["name"] == "models" and not mount.get("readOnly"):
                    writers.add((component(template), container["name"]))
    source = installation.values["models"]["source"]
    if source == "volume":
        assert writers == {("training", "training"), ("releases", "releases")}
    else:
        assert writers <= {("model-server", "pull"), ("model-server", "copy")}


def test_pods_of_a_volume_for_one_node_stay_together(installation: Installation) -> None:
    volume = installation.values["models"]["volume"]
    alone = installation.has_volume and volume["accessMode"] == "ReadWriteOnce"
    for template in pods(installation.objects):
        mounts_volume = any("persistentVolumeClaim" in each for each in template["spec"]["volumes"])
        assert ("affinity" in template["spec"]) == (mounts_volume and alone)


def test_model_server_waits_for_models_config(tmp_path: Path) -> None:
    spec = pod(named(overlay("local"), "Deployment", "model-server"))["spec"]
    (waiter,), (server,) = spec["initContainers"], spec["containers"]
    assert waiter["image"] == server["image"]
    bash, option, script = waiter["command"]
    command = [bash, option, script.replace("/models/", f"{tmp_path}/")]
    with subprocess.Popen(command) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.5)
        (tmp_path / "models.config").touch()
        assert process.wait(10) == 0


@pytest.mark.parametrize(
    ("train_status", "status", "calls"),
    [(0, 0, ["train", "models"]), (4, 0, ["train", "models"]), (1, 1, ["train"])],
)
def test_training_again_ignores_refusal_but_no_error(
    train_status: int, status: int, calls: list[str], tmp_path: Path
) -> None:
    (trainer,) = containers(pod(named(overlay("local"), "CronJob", "training")))
    variables = {"STATUS": str(train_status), **fake_digits(tmp_path)}
    done = subprocess.run(trainer["command"], env=variables, capture_output=True, text=True)
    assert done.returncode == status
    assert [call.split()[0] for call in done.stdout.splitlines()] == calls


def test_releases_job_calls_the_gateways_with_their_image_and_never_runs_by_schedule() -> None:
    objects = overlay("local")
    rollback = named(objects, "CronJob", "rollback")
    assert rollback["spec"]["suspend"] is True
    (container,) = containers(pod(rollback))
    gateways = named(
        objects, "Service", environment(container, objects)["DIGITS_URL"].removeprefix("http://")
    )
    assert gateways["spec"]["ports"][0]["port"] == 80
    assert container["image"] == service(objects, "gateway")["image"]
