"""Versions of a model: those that its policy wants, and the next step there without a gap in service."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig

from digit_serving.model_server.errors import ServingError

State = ModelVersionStatus.State


@dataclass
class Version:
    """`requests` are under way; `retry_at` is on the monotonic clock."""

    model: str
    number: int
    path: Path
    aspired: bool = True
    state: int = State.START
    error: ServingError | None = None
    servable: Any = None
    requests: int = 0
    attempts: int = 0
    retry_at: float = 0.0

    def __str__(self) -> str:
        return f"{{name: {self.model} version: {self.number}}}"


def aspired(model: ModelConfig) -> dict[int, Path]:
    """The directories of the versions that the model's policy wants now; ServingError without a base path."""
    base, policy = Path(model.base_path), model.model_version_policy
    if not base.exists():
        raise ServingError(f"Could not find base path {base} for servable {model.name}")
    found = {
        int(child.name): child for child in sorted(base.iterdir()) if re.fullmatch(r"[+-]?\d+", child.name)
    }
    latest = sorted(found)[-max(policy.latest.num_versions, 1) :]
    choices = {"all": found, "specific": policy.specific.versions}
    wanted = choices.get(policy.WhichOneof("policy_choice"), latest)
    return {number: path for number, path in found.items() if number in wanted}


def next_step(versions: Sequence[Version], now: float) -> Version | None:
    """The version, of these (newest first), to unload if it is available, or to load if it is not."""
    available = [version for version in versions if version.state == State.AVAILABLE]
    surplus = [version for version in available if not version.aspired]
    replaced = len(available) > len(surplus) or not any(version.aspired for version in versions)
    if surplus and (replaced or len(surplus) > 1):
        return surplus[-1]
    loadable = (State.START, State.LOADING)
    return next((v for v in versions if v.aspired and v.state in loadable and v.retry_at <= now), None)
