"""Installations to check: the overlays, and every pair of the chart's choices."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product
from typing import Any

import pytest

from tests.manifests import OVERLAYS, Object, defaults, merge, overlay, overlay_values, render

STORAGE = {"ipBlock": {"cidr": "203.0.113.0/28"}}
DATABASE = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "postgres"}}}
REDIS = {"ipBlock": {"cidr": "198.51.100.9/32"}}
CONTROLLER = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "traefik"}}}
PUBLIC_KEY = "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"

# Values of each choice.
CHOICES: dict[str, dict[str, Any]] = {
    "models": {
        "volume": {},
        "one-node": {
            "models": {"volume": {"accessMode": "ReadWriteOnce"}},
            "modelServer": {"replicas": {"min": 1, "max": 1}},
        },
        "image": {"models": {"source": "image", "image": {"mounted": True}}},
        "copied": {"modelName": "flowers", "models": {"source": "image"}},
        "bucket": {"modelName": "flowers", "models": {"source": "bucket", "bucket": {"peers": [STORAGE]}}},
        "signed": {
            "models": {
                "source": "bucket",
                "bucket": {"peers": [STORAGE], "publicKey": PUBLIC_KEY, "port": 9000},
            }
        },
    },
    "route": {
        "internal": {},
        "ingress": {"route": {"kind": "ingress"}},
        "route": {"route": {"kind": "gateway", "proxies": 2}, "gateway": {"callers": [CONTROLLER]}},
    },
    "callers": {
        "anonymous": {},
        "keys": {"apiKeys": True},
        "limited": {"rateLimit": "600/minute"},
        "shared": {"rateLimit": "600/minute", "redis": {"external": True, "peers": [REDIS], "port": 6380}},
    },
    "feedback": {
        "none": {},
        "feedback": {
            "feedback": {"enabled": True, "peers": [DATABASE]},
            "gateway": {"settings": {"DIGITS_FEEDBACK_OPEN": "1"}},
        },
    },
    "monitoring": {
        "unwatched": {},
        "watched": {"monitoring": {"enabled": True, "labels": {"release": "prometheus"}}},
        "queue": {
            "monitoring": {"enabled": True, "traces": "http://collector.monitoring:4318"},
            "autoscaling": {"metric": "queue"},
        },
    },
    "exposure": {
        "cluster": {},
        "balanced": {
            "gateway": {
                "service": {
                    "type": "LoadBalancer",
                    "ipFamilyPolicy": "PreferDualStack",
                    "externalTrafficPolicy": "Local",
                    "loadBalancerSourceRanges": ["203.0.113.0/24", "2001:db8::/32"],
                },
                "preStopSleepSeconds": 30,
                "terminationGracePeriodSeconds": 60,
                "podDisruptionBudget": {"maxUnavailable": "25%"},
            },
            "autoscaling": {"behavior": {"scaleDown": {"selectPolicy": "Disabled"}}},
        },
    },
    "cluster": {
        "kubernetes": {},
        "openshift": {
            "runAsUser": None,
            "imagePullPolicy": "Always",
            "dns": {
                "peers": [
                    {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "openshift-dns"}}}
                ],
                "port": 5353,
            },
            "secrets": {"feedback": "postgres", "gatewayTls": "client", "releases": "promoter"},
            "models": {
                "resources": {
                    "requests": {"ephemeral-storage": "64Mi"},
                    "limits": {"ephemeral-storage": "1Gi"},
                }
            },
        },
    },
    "encryption": {"plain": {}, "tls": {"modelServer": {"tls": True}}},
    "hardware": {"cpu": {}, "gpu": {"modelServer": {"gpu": True}, "training": {"gpu": True}}},
    "release": {
        "stable": {},
        "canary": {
            "gateway": {"traffic": {"digits": {"canary": 0.05}}},
            "imagePullSecrets": ["registry"],
        },
        "shadow": {
            "gateway": {
                "settings": {"DIGITS_SHADOW_LABEL": "canary", "DIGITS_WORKERS": "4", "DIGITS_DEADLINE": "7.5"}
            }
        },
    },
}


@dataclass(frozen=True)
class Installation:
    """Values, with the chart's defaults, and the objects that they make."""

    values: dict[str, Any]
    objects: list[Object]

    @property
    def has_volume(self) -> bool:
        """True if jobs publish on a volume."""
        return bool(self.values["models"]["source"] == "volume")


def pairwise(choices: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    """Yield rows of one option a choice, until a row has every two options of different choices."""
    options = {name: [(name, option) for option in choices[name]] for name in choices}
    uncovered = dict.fromkeys(
        pair
        for first, second in combinations(options, 2)
        for pair in product(options[first], options[second])
    )
    while uncovered:
        row = dict(next(iter(uncovered)))
        for name in (name for name in choices if name not in row):
            row[name] = max(
                choices[name],
                key=lambda option: len(_pairs({**row, name: option}, choices) & uncovered.keys()),
            )
        for pair in _pairs(row, choices):
            uncovered.pop(pair, None)
        yield row


def _pairs(row: Mapping[str, str], choices: Mapping[str, Any]) -> set[Any]:
    return set(combinations([(name, row[name]) for name in choices if name in row], 2))


ROWS = {"-".join(row[name] for name in CHOICES): row for row in pairwise(CHOICES)}


@cache
def installation_of(name: str) -> Installation:
    """Return the installation of an overlay or of a row."""
    if name in OVERLAYS:
        return Installation(merge(defaults(), overlay_values(name)), list(overlay(name)))
    options = [CHOICES[choice][option] for choice, option in ROWS[name].items()]
    schedule = {"training": {"schedule": "0 3 * * 0"}}
    values = merge({}, *options)
    if values.get("models", {}).get("source", "volume") == "volume" and "feedback" in values:
        values = merge(values, schedule)
    return Installation(merge(defaults(), values), render(values))


@pytest.fixture(params=[*OVERLAYS, *(pytest.param(row, marks=pytest.mark.slow) for row in ROWS)])
def installation(request: pytest.FixtureRequest) -> Installation:
    """Overlay, or installation of a row of choices."""
    return installation_of(request.param)
