"""Nonsense in values: the chart refuses each kind by the value's name, before anything is in the cluster."""

from typing import Any

import pytest

from tests.k8s.conftest import DATABASE, REDIS, STORAGE
from tests.k8s.test_values import pointer, refusal, replaced
from tests.manifests import merge

pytestmark = pytest.mark.slow

LONG = "a" * 64
KEYS = {"apiKeys": True, "feedback": {"enabled": True, "peers": [DATABASE]}}

# Value, nonsense, and the values beside it without which another check would refuse it.
NONSENSE: list[tuple[str, Any, dict[str, Any]]] = [
    # Numbers and units.
    ("rateLimit", "0/minute", {}),
    ("rateLimit", "600/0 minute", {}),
    ("rateLimit", "600/fortnight", {}),
    ("models.size", "0", {}),
    ("models.size", "-1Gi", {}),
    ("models.size", "1GB", {}),
    ("models.size", "1G i", {}),
    ("gateway.resources.limits.memory", "2m", {}),
    ("gateway.resources.limits.memory", 512, {}),
    ("gateway.resources.limits.cpu", "2Gi", {}),
    ("gateway.resources.limits.cpu", "-1", {}),
    ("gateway.resources.limits.cpus", "2", {}),
    ("gateway.resources.requests.cpu", "3", {}),
    ("modelServer.resources.requests.memory", "3Gi", {}),
    ("models.resources.requests.cpu", 2, {}),
    ("redis.resources.requests.memory", "1e9", {}),
    ("training.gpuResources.requests.memory", "17179869185", {}),
    ("modelServer.gpuResources.limits.nvidia.com/gpu", 0.5, {}),
    ("gateway.replicas.min", 0, {}),
    ("gateway.replicas.min", 30, {}),
    ("modelServer.replicas.max", 1, {}),
    ("gateway.replicas.max", 100_000, {}),
    ("gateway.podDisruptionBudget.maxUnavailable", "200%", {}),
    ("gateway.podDisruptionBudget.maxUnavailable", -1, {}),
    ("gateway.preStopSleepSeconds", 0, {}),
    ("gateway.preStopSleepSeconds", 100_000, {"gateway": {"terminationGracePeriodSeconds": 200_000}}),
    ("gateway.terminationGracePeriodSeconds", 10, {}),
    ("gateway.terminationGracePeriodSeconds", 1_000_000, {}),
    ("autoscaling.targetCPUUtilizationPercentage", 0, {}),
    ("autoscaling.targetCPUUtilizationPercentage", 100_000, {}),
    ("autoscaling.waitingRequests", 0, {}),
    ("runAsUser", 0, {}),
    ("runAsUser", 2**31, {}),
    ("route.proxies", 0, {}),
    ("monitoring.trafficFloor", -1, {}),
    # Ports and addresses.
    ("dns.port", 0, {}),
    ("redis.port", 70_000, {}),
    ("feedback.port", "5432", {}),
    ("gateway.callers", [{"ipBlock": {"cidr": "300.1.1.1/8"}}], {}),
    ("gateway.callers", [{"ipBlock": {"cidr": "10.0.0.0/33"}}], {}),
    ("gateway.callers", [{"ipBlock": {"cidr": "::/129"}}], {}),
    ("gateway.callers", [{"podSelector": {"app": "page"}}], {}),
    ("gateway.callers", [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}], {}),
    (
        "gateway.service.loadBalancerSourceRanges",
        ["10.0.0.0/99"],
        {"gateway": {"service": {"type": "LoadBalancer"}}},
    ),
    ("gateway.service.loadBalancerSourceRanges", ["10.0.0.0/8"], {}),
    ("gateway.service.externalTrafficPolicy", "Local", {}),
    ("gateway.service.type", "ExternalName", {}),
    ("gateway.service.ipFamilyPolicy", "DualStack", {}),
    ("monitoring.traces", "http://", {}),
    ("monitoring.traces", "http://a b", {}),
    ("monitoring.traces", "http://collector:99999", {}),
    ("autoscaling.prometheus", "http:///", {}),
    ("models.bucket.url", "s3://", {}),
    ("models.bucket.url", "ftp://models", {}),
    ("models.bucket.url", "s3://My_Bucket/models", {}),
    # Hosts and names.
    ("route.host", "https://digits.example.com", {}),
    ("route.host", "digits.example.com:443", {}),
    ("route.host", "digits_example.com", {}),
    ("route.host", "-digits.example.com", {}),
    ("route.host", "203.0.113.5", {}),
    ("route.host", f"{LONG}.example.com", {}),
    ("route.host", "", {"route": {"kind": "ingress"}}),
    ("route.ingress.class", "a b", {}),
    ("route.ingress.tlsSecret", "Digits_TLS", {}),
    ("route.gateway.namespace", "a.b", {}),
    ("route.gateway.name", "", {}),
    ("secrets.gatewayKeys", "a/b", {}),
    ("secrets.feedback", "Feedback", {}),
    ("secrets.redis", "a" * 254, {}),
    ("secrets.releases", "-", {}),
    ("imagePullSecrets", ["a b"], {}),
    ("models.volume.storageClass", "a b", {}),
    ("models.volume.existingClaim", "models/1", {}),
    ("priorityClassName", "High!", {}),
    ("gateway.priorityClassName", "system critical", {}),
    ("monitoring.namespace", "a.b", {}),
    ("monitoring.namespace", LONG, {}),
    ("modelName", "a/b", {}),
    ("modelName", "a" * 300, {"models": {"source": "image"}}),
    ("podLabels", {"team": "a b"}, {}),
    ("podLabels", {"team": LONG}, {}),
    ("podLabels", {"a b": "c"}, {}),
    ("podLabels", {f"example.com/{LONG}": "c"}, {}),
    ("podAnnotations", {"a b": "c"}, {}),
    ("serviceAccount.annotations", {"eks/role/arn": "c"}, {}),
    ("gateway.service.annotations", {"": "c"}, {}),
    ("monitoring.labels", {"release": "kube prometheus"}, {}),
    ("nodeSelector", {"kubernetes.io/arch": "amd64 "}, {}),
    ("training.nodeSelector", {"a b": "c"}, {}),
    ("tolerations", [{"key": "gpu", "operator": "Exist"}], {}),
    ("tolerations", [{"key": "gpu", "operator": "Exists", "effect": "NoRun"}], {}),
    ("affinity", {"nodeAfinity": {}}, {}),
    ("topologySpreadConstraints", [{"maxSkew": 1}], {}),
    ("autoscaling.behavior", {"scaledown": {}}, {}),
    # Images.
    ("images.gateway", "a::1", {}),
    ("images.gateway", "digits-gateway:", {}),
    ("images.gateway", "Digits/Gateway:1", {}),
    ("images.gateway", "https://ghcr.io/digits:1", {}),
    ("images.gateway", "digits@sha256:abc", {}),
    ("images.training", "a b:1", {}),
    ("images.redis", f"redis:{'1' * 129}", {}),
    ("models.image.reference", "digits-model", {}),
    # Schedules.
    ("training.schedule", "0 3 * * 7", KEYS),
    ("training.schedule", "60 3 * * 0", KEYS),
    ("training.schedule", "0 24 * * 0", KEYS),
    ("training.schedule", "0 3 32 * *", KEYS),
    ("training.schedule", "0 3 30 2 *", KEYS),
    ("training.schedule", "0 3 31 4,6 *", KEYS),
    ("training.schedule", "0 3 1 13 *", KEYS),
    ("training.schedule", "0 3 1 foo *", KEYS),
    ("training.schedule", "0 3 5-1 * *", KEYS),
    ("training.schedule", "*/0 3 * * *", KEYS),
    ("training.schedule", "0 0 3 * * *", KEYS),
    ("training.schedule", "@reboot", KEYS),
    # Settings of the gateway.
    ("gateway.settings.DIGITS_CORS_ORIGINS", "not a url", {}),
    ("gateway.settings.DIGITS_CORS_ORIGINS", "https://a.example/page", {}),
    ("gateway.settings.DIGITS_CORS_ORIGINS", "*", {}),
    ("gateway.settings.DIGITS_DEFAULT_LABEL", "my label", {}),
    ("gateway.settings.DIGITS_SHADOW_LABEL", "a/b", {}),
    ("gateway.settings.DIGITS_SHADOW_LABEL", "stable", {}),
    ("gateway.settings.DIGITS_LABELS", "stable, my label", {}),
    ("gateway.settings.DIGITS_MODEL_NAMES", "flowers/1", {}),
    ("gateway.settings.DIGITS_READER", "a b", {}),
    ("gateway.settings.DIGITS_MAX_IMAGES", "300", {"modelServer": {"gpu": True}}),
    ("gateway.settings.DIGITS_WORKERS", "0", {}),
    ("gateway.settings.DIGITS_DEADLINE", "-5", {}),
    ("gateway.settings.DIGITS_DEADLINE", "86400", {}),
    ("gateway.settings.DIGITS_SHADOW_SHARE", "1.5", {}),
    ("gateway.settings.DIGITS_FEEDBACK_SAMPLE", "0.1", {}),
    ("gateway.settings.DIGITS_MODELS_FILE", "models.toml", {}),
    ("gateway.settings.DIGITS_LOG_LEVEL", "verbose", {}),
    ("gateway.settings.OTEL_TRACES_SAMPLER", "0.1", {}),
    # Shares.
    ("gateway.traffic", {"digits": {"canary": 0.7, "next": 0.7}}, {}),
    ("gateway.traffic", {"digits": {"canary": 1.4}}, {}),
    ("gateway.traffic", {"digits": {"stable": 0.5}}, {}),
    ("gateway.traffic", {"digits": {"my label": 0.5}}, {}),
    (
        "gateway.traffic",
        {"flowers": {"canary": 0.5}},
        {"gateway": {"settings": {"DIGITS_MODEL_NAMES": "digits"}}},
    ),
    ("gateway.traffic", {"a/b": {"canary": 0.5}}, {}),
    # Containers' variables and volumes.
    ("gateway.extraEnv", [{"name": "A B", "value": "1"}], {}),
    ("gateway.extraEnv", [{"name": "A", "value": "1", "valueFrom": {}}], {}),
    ("gateway.extraEnv", [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}], {}),
    ("gateway.extraVolumes", [{"emptyDir": {}}], {}),
    ("gateway.extraVolumes", [{"name": "tmp", "emptyDir": {}}], {}),
    ("gateway.extraVolumeMounts", [{"name": "tmp", "mountPath": "files"}], {}),
    ("gateway.extraVolumeMounts", [{"name": "tmp", "mountPath": "/tmp"}], {}),
    ("gateway.extraVolumeMounts", [{"name": "lost", "mountPath": "/lost"}], {}),
    # Choices.
    ("redis.peers", [REDIS], {"rateLimit": "1/second"}),
    (
        "models.bucket.publicKey",
        "-----BEGIN PUBLIC KEY-----\n",
        {"models": {"source": "bucket", "bucket": {"peers": [STORAGE]}}},
    ),
    ("training.command", [""], {}),
]


@pytest.mark.parametrize(
    ("path", "value", "others"), NONSENSE, ids=[f"{path}={str(value)[:40]}" for path, value, _ in NONSENSE]
)
def test_nonsense_is_refused_by_its_name(path: str, value: Any, others: dict[str, Any]) -> None:
    head, _, resource = path.partition(".nvidia.com/")
    names = (*head.split("."), f"nvidia.com/{resource}") if resource else tuple(head.split("."))
    said = refusal(merge(others, replaced({}, names, value)))
    # The schema names a value by its path, or an unknown name in it; a check names what two values are in.
    known, unknown = f"'/{pointer(names)}", f"'/{pointer(names[:-1])}': additional"
    assert known in said or unknown in said or ".".join(names[:2]) in said, said
