"""models.traffic.json: shares of a model's requests that name no version, by version label.

    {"digits": {"next": 0.1}}

The default version answers the rest.
"""

import json
from collections.abc import Mapping
from typing import TypeAlias

from digit_core.artifact.versions import ArtifactError

Shares: TypeAlias = Mapping[str, float]
Traffic: TypeAlias = Mapping[str, Shares]
"""Shares of each model."""

FILE = "models.traffic.json"
READ_SECONDS = 1.0
"""Longest time after which a request of a gateway reads the file again."""


def parse(text: str) -> Traffic:
    """Return the content of a file. Raise ArtifactError if it is invalid."""
    try:
        document = json.loads(text)
        traffic = {name: dict(shares.items()) for name, shares in document.items()}
    except (ValueError, AttributeError) as error:
        raise ArtifactError(f"{FILE} is damaged ({error}); correct or remove it") from error
    for name, shares in traffic.items():
        are_shares = all(type(share) in (int, float) and 0 <= share <= 1 for share in shares.values())
        # Sums of floating-point numbers may exceed 1 by a rounding error.
        if not are_shares or sum(shares.values()) > 1 + 1e-9:
            raise ArtifactError(f"the shares of {name}, {shares}, and their sum must be between 0 and 1")
    return traffic


def with_share(traffic: Traffic, name: str, label: str, share: float) -> Traffic:
    """Return the traffic with the share of a model's version label; 0 removes it. Raise ArtifactError."""
    shares = {**traffic.get(name, {}), label: share}
    changed = {**traffic, name: {each: part for each, part in shares.items() if part}}
    return parse(json.dumps({each: shares for each, shares in changed.items() if shares}))
