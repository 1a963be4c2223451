"""Job that `digits models promote --job` prints, beside the objects of the chart."""

from tests.k8s.conftest import promotion
from tests.manifests import containers, environment, named, of_kind, overlay, pod, training_job


def test_releases_job_calls_the_gateways_of_its_namespace() -> None:
    job = promotion()
    # `kubectl --namespace` chooses the installation.
    assert "namespace" not in job["metadata"]
    (container,) = containers(pod(job))
    services = {service["metadata"]["name"]: service for service in of_kind(overlay("local"), "Service")}
    url = environment(container, overlay("local"))["DIGITS_URL"]
    assert services[url.removeprefix("http://")]["spec"]["ports"][0]["port"] == 80


def test_releases_job_has_the_image_and_security_of_the_installation() -> None:
    (container,) = containers(pod(promotion()))
    (gateway,) = containers(pod(named(overlay("local"), "Deployment", "gateway")))
    assert container["image"] == gateway["image"]
    training = pod(training_job(overlay("local")))["spec"]
    # fsGroup makes the volume writable.
    assert pod(promotion())["spec"]["securityContext"] == training["securityContext"]
    volumes = {volume["name"]: volume for volume in pod(promotion())["spec"]["volumes"]}
    # Without TLS there are no such secrets.
    for volume, secret in (("tls", "gateway-tls"), ("server-tls", "gateway-server-tls")):
        assert volumes[volume]["secret"] == {"secretName": secret, "optional": True}
