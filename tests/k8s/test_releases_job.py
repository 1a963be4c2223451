"""Job that `digits models promote --job` prints, beside the objects of k8s/."""

import json
from typing import Any

import pytest
import yaml

from digit_serving.releases.job import format_job
from tests.commands import parse
from tests.k8s.test_kustomizations import VERSIONS, validate
from tests.k8s.test_network import labels_of
from tests.kustomize import TRAINING, built, containers, named, of_kind, pod


@pytest.fixture(scope="module")
def job() -> Any:
    return yaml.safe_load(format_job("promote", ["2", "--version-label", "canary"], None))


@pytest.mark.parametrize("version", VERSIONS)
def test_releases_job_matches_schema(job: Any, version: str) -> None:
    validate(json.dumps(job), version)


def test_releases_job_is_in_the_installation(job: Any) -> None:
    assert job["metadata"]["namespace"] == "digits"
    # The network policy `releases` selects these labels.
    assert pod(job)["metadata"]["labels"] == labels_of("releases")
    volumes = {volume["name"]: volume for volume in pod(job)["spec"]["volumes"]}
    claim = volumes["models"]["persistentVolumeClaim"]["claimName"]
    assert named(built("local"), "PersistentVolumeClaim", claim)
    (container,), (gateway,) = (
        containers(pod(workload)) for workload in (job, named(built("local"), "Deployment", "gateway"))
    )
    assert container["image"] == gateway["image"]
    target = next(entry for entry in gateway["env"] if entry["name"] == "DIGITS_MODEL_SERVER")
    assert target in container["env"]
    services = {service["metadata"]["name"]: service for service in of_kind(built("local"), "Service")}
    (url,) = [entry["value"] for entry in container["env"] if entry["name"] == "DIGITS_URL"]
    assert services[url.removeprefix("http://")]["spec"]["ports"][0]["port"] == 80


def test_releases_job_has_the_security_of_the_training_job(job: Any) -> None:
    training = pod(named(built("local"), "Job", TRAINING))["spec"]
    spec = pod(job)["spec"]
    for key in ("securityContext", "automountServiceAccountToken", "enableServiceLinks"):
        assert spec[key] == training[key]
    assert [container["securityContext"] for container in containers(pod(job))] == [
        container["securityContext"] for container in containers({"spec": training})
    ]


def test_releases_job_command_is_valid(job: Any) -> None:
    (container,) = containers(pod(job))
    program, *arguments = container["command"]
    assert program == "digits"
    options = parse(arguments)
    assert (options["number"], options["label"]) == (2, "canary")
