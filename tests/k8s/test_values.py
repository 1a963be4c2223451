"""Values of the chart: each is in the objects as it was written, or refused by its name."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from digit_serving.gateway.settings import Settings
from tests.k8s.conftest import DATABASE, PUBLIC_KEY, REDIS, STORAGE
from tests.manifests import Object, containers, defaults, merge, named, pod, render, templates

pytestmark = pytest.mark.slow

EXTRAS: dict[str, Any] = {
    "extraEnv": [{"name": "A", "value": "1"}],
    "extraVolumes": [{"name": "files", "configMap": {"name": "files"}}],
    "extraVolumeMounts": [{"name": "files", "mountPath": "/files"}],
}
WATCHED = {"monitoring": {"enabled": True, "labels": {"release": "prometheus"}}}
# Together, the installations have every value.
INSTALLATIONS: list[dict[str, Any]] = [
    merge(
        WATCHED,
        {
            "fullnameOverride": "a",
            "secrets": {
                "gatewayKeys": "a",
                "gatewayTls": "b",
                "modelServerTls": "c",
                "feedback": "d",
                "releases": "e",
            },
            "models": {"volume": {"storageClass": "a"}},
            "imagePullPolicy": "Always",
            "imagePullSecrets": ["registry"],
            "priorityClassName": "a",
            "serviceAccount": {"annotations": {"a": "b"}},
            "nodeSelector": {"a": "b"},
            "tolerations": [{"key": "a", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {"a": "b"}},
            "topologySpreadConstraints": [{"topologyKey": "a"}],
            "podLabels": {"a": "b"},
            "podAnnotations": {"a": "b"},
            "gateway": {
                **EXTRAS,
                "settings": {"OTEL_SERVICE_NAME": "a", "DIGITS_READER": "b"},
                "callers": [DATABASE, STORAGE],
                "service": {
                    "type": "LoadBalancer",
                    "ipFamilyPolicy": "RequireDualStack",
                    "annotations": {"a": "b"},
                    "externalTrafficPolicy": "Local",
                    "loadBalancerSourceRanges": ["203.0.113.0/24"],
                },
            },
            "modelServer": {**EXTRAS, "tls": True},
            "training": {**EXTRAS, "arguments": ["a"], "schedule": "0 3 * * 0"},
            "apiKeys": True,
            "rateLimit": "600/minute",
            "feedback": {"enabled": True, "peers": [DATABASE]},
            "route": {"kind": "ingress", "ingress": {"annotations": {"a": "b"}}},
            "monitoring": {"traces": "http://collector.monitoring:4318"},
            "autoscaling": {"behavior": {"scaleUp": {"selectPolicy": "Max"}}},
        },
    ),
    {
        "models": {"source": "bucket", "bucket": {"peers": [STORAGE], "publicKey": PUBLIC_KEY}},
        "secrets": {"modelBucket": "a", "redis": "b"},
        "modelServer": {"gpu": True},
        "rateLimit": "600/minute",
        "redis": {"external": True, "peers": [REDIS]},
        "route": {"kind": "gateway"},
        "autoscaling": {"metric": "queue"},
        **WATCHED,
    },
    {
        "models": {"source": "image"},
        "gateway": {"tls": True},
        "secrets": {"gatewayServerTls": "a"},
        **WATCHED,
    },
    {
        "models": {"volume": {"existingClaim": "a"}},
        "training": {"command": ["a"], "gpu": True, "gpuResources": {}},
    },
]


def objects_of(values: dict[str, Any]) -> list[Object]:
    """Return the objects of an installation, and those of `helm test`."""
    return [
        item
        for path, text in templates(values).items()
        if path.endswith(".yaml")
        for item in yaml.load_all(text, yaml.CSafeLoader)
    ]


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str | int]]:
    """Yield path and value of every string and number in nested dicts and lists."""
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        yield path, value
    elif isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, str(key)))


def replaced(value: Any, path: tuple[str, ...], text: Any) -> Any:
    """Return nested values with another one at a path."""
    if not path:
        return text
    if isinstance(value, list):
        return [replaced(item, path[1:], text) if str(i) == path[0] else item for i, item in enumerate(value)]
    return {**value, path[0]: replaced(value.get(path[0], {}), path[1:], text)}


def replaced_all(values: Any, texts: Mapping[tuple[str, ...], str | int]) -> Any:
    """Return nested values with others at these paths."""
    for path, text in texts.items():
        values = replaced(values, path, text)
    return values


def pointer(path: Iterable[str]) -> str:
    """Return a path as the schema's messages write it (JSON Pointer)."""
    return "/".join(part.replace("/", "~1") for part in path)


def refusal(values: dict[str, Any]) -> str:
    """Return what Helm says of values that it refuses, "" of others."""
    helm = pytest.importorskip("helm_python")
    try:
        objects_of(values)
    except helm.HelmError as error:
        return str(error)
    return ""


def test_strings_and_numbers_are_in_an_object_or_refused_by_their_names() -> None:
    seen: dict[tuple[str, ...], bool] = {}
    for installation in INSTALLATIONS:
        values = merge(defaults(), installation)
        # Each number is 20 more than the one before, as a grace period is than the time before it.
        texts = {
            path: f'{".".join(path)}: it\'s "a" ]}}, # {{b'
            if isinstance(given, str)
            else 10_000 + 20 * number
            for number, (path, given) in enumerate(leaves(values))
            if given != ""
        }
        said = refusal(replaced_all(values, texts))
        refused = {path for path in texts if f"/{pointer(path)}'" in said}
        accepted = {path: text for path, text in texts.items() if path not in refused}
        found = [str(text) for _, text in leaves(objects_of(replaced_all(values, accepted)))]
        for path, text in texts.items():
            seen[path] = seen.get(path) or path in refused or any(str(text) in each for each in found)
    assert seen.keys() >= {path for path, _ in leaves(defaults())}
    assert [path for path in seen if not seen[path]] == []


def keys(values: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every value; a container's resources are one value."""
    for key, value in values.items():
        yield (*path, key)
        if isinstance(value, dict) and not key.lower().endswith("resources"):
            yield from keys(value, (*path, key))


def test_null_is_refused_by_its_name() -> None:
    for path in keys(defaults()):
        if path != ("runAsUser",):
            said = refusal(replaced({}, path, None))
            where = "/".join(("", *path[:-1]))
            assert f"at '{where}': missing property '{path[-1]}'" in said, path


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("rateLimit", "fast"),
        ("rateLimit", "5/second;"),
        ("training.schedule", "every day"),
        ("models.size", "big"),
        ("models.bucket.url", "models"),
        ("models.bucket.publicKey", "key.pem"),
        ("images.gateway", "digits-gateway"),
        ("gateway.callers", [{"ipBlock": {"cidr": "nonsense"}}]),
        ("gateway.service.loadBalancerSourceRanges", ["nonsense"]),
        ("gateway.service.externalTrafficPolicy", "Nearby"),
        ("gateway.resources.limits.memory", "much"),
        ("gateway.podDisruptionBudget.maxUnavailable", "few"),
        ("monitoring.runbook", "on the wiki"),
        ("monitoring.traces", "collector:4318"),
        ("imagePullPolicy", "Sometimes"),
        ("runAsUser", 0),
        ("dns.peers", []),
        ("route.kind", "ingres"),
    ],
)
def test_value_of_another_kind_is_refused_by_its_name(path: str, value: Any) -> None:
    names = tuple(path.split("."))
    assert f"at '/{'/'.join(names)}" in refusal(replaced({}, names, value))


@pytest.mark.parametrize("limits", ["", "600/minute", "10/second;1000/hour", "5 per 2 minutes"])
def test_rate_limits_of_the_gateway_are_accepted(limits: str) -> None:
    assert Settings(rate_limit=limits)
    assert refusal({"rateLimit": limits}) == ""


@pytest.mark.parametrize("schedule", ["0 3 * * 0", "*/5 0-6,12 1 JAN mon-fri", "@weekly"])
def test_schedules_of_cron_are_accepted(schedule: str) -> None:
    feedback = {"apiKeys": True, "feedback": {"enabled": True, "peers": [DATABASE]}}
    objects = render(merge(feedback, {"training": {"schedule": schedule}}))
    assert named(objects, "CronJob", "training")["spec"]["schedule"] == schedule


# Settings that another value sets.
ELSEWHERE = [
    *("DIGITS_HOST", "DIGITS_PORT", "DIGITS_TLS_CERTIFICATE", "DIGITS_TLS_KEY", "DIGITS_MODEL_SERVER"),
    *("DIGITS_MODEL_SERVER_CA", "DIGITS_MODEL_SERVER_CERTIFICATE", "DIGITS_MODEL_SERVER_KEY"),
    *("DIGITS_MODEL_NAME", "DIGITS_API_KEYS", "DIGITS_FEEDBACK", "DIGITS_RATE_LIMIT"),
    "DIGITS_RATE_LIMIT_STORE",
]
SETTINGS = {f"DIGITS_{name.upper()}": field for name, field in Settings.model_fields.items()}


def test_setting_is_taken_or_refused_with_the_value_to_set() -> None:
    def text(default: Any) -> str:
        value = (
            ",".join(default) if isinstance(default, tuple) else "" if default is None else str(default or 0)
        )
        return value.lower() if isinstance(default, bool) else value

    taken = {name: text(field.default) for name, field in SETTINGS.items() if name not in ELSEWHERE}
    gateway = named(render({"gateway": {"settings": taken}}), "Deployment", "gateway")
    variables = {entry["name"]: entry["value"] for entry in containers(pod(gateway))[0]["env"]}
    assert variables == {**taken, "DIGITS_MODEL_NAME": "digits"}
    for name in ELSEWHERE:
        assert f"gateway.settings.{name}: " in refusal({"gateway": {"settings": {name: "1"}}})
    assert "'WORKERS' not allowed" in refusal({"gateway": {"settings": {"WORKERS": "2"}}})


def test_setting_that_the_gateway_refuses_is_refused_by_its_name() -> None:
    bounded = set()
    for name in SETTINGS.keys() - set(ELSEWHERE):
        for value in ("many", "-1", "0", "1.5", "2e"):
            if is_refused(name, value):
                bounded.add(name)
                assert f"'/gateway/settings/{name}'" in refusal({"gateway": {"settings": {name: value}}})
    assert {"DIGITS_WORKERS", "DIGITS_DEADLINE", "DIGITS_LOG_LEVEL", "DIGITS_FEEDBACK_OPEN"} <= bounded


def is_refused(name: str, value: str) -> bool:
    """True if the gateway refuses a setting for its text, whatever the files and the other settings."""
    try:
        Settings.model_validate({name.removeprefix("DIGITS_").lower(): value})
    except ValidationError as error:
        return error.errors()[0]["type"] not in ("value_error", "path_not_file")
    return False


@pytest.mark.parametrize(
    ("component", "name", "values"),
    [
        *(("gateway", name, {}) for name in ELSEWHERE),
        ("gateway", "DIGITS_WORKERS", {}),
        ("gateway", "DIGITS_LABELS", {"gateway": {"settings": {"DIGITS_LABELS": "stable"}}}),
        ("gateway", "DIGITS_TRUSTED_PROXIES", {"route": {"kind": "ingress"}}),
        (
            "gateway",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            {"monitoring": {"traces": "http://collector.monitoring:4318"}},
        ),
        ("training", "DIGITS_MODEL_SERVER", {}),
        ("training", "DIGITS_MODEL_SERVER_CA", {}),
        ("training", "DIGITS_FEEDBACK", {}),
        ("training", "DIGITS_MODELS", {}),
    ],
)
def test_extra_variable_that_the_chart_sets_is_refused(
    component: str, name: str, values: dict[str, Any]
) -> None:
    extra = {component: {"extraEnv": [{"name": name, "value": "1"}]}}
    assert f"{component}.extraEnv: {name}: set" in refusal(merge(values, extra)).replace(": the ", ": set ")


@pytest.mark.parametrize(("value", "label"), [("podLabels", "component"), ("monitoring.labels", "part-of")])
def test_label_that_the_chart_sets_is_refused(value: str, label: str) -> None:
    name = f"app.kubernetes.io/{label}"
    values = replaced({}, tuple(value.split(".")), {name: "ours"})
    assert f"{value}: {name}: the chart sets this label" in refusal(values)


def test_grace_that_ends_before_the_requests_is_refused() -> None:
    assert "gateway.terminationGracePeriodSeconds: at least 15" in refusal(
        {"gateway": {"preStopSleepSeconds": 30}}
    )
    assert refusal({"gateway": {"preStopSleepSeconds": 30, "terminationGracePeriodSeconds": 45}}) == ""
