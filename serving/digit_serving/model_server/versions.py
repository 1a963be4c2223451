"""A model's versions: which its policy wants, and the next step there that leaves no gap in service."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig

from digit_serving.model_server.errors import ServingError

State = ModelVersionStatus.State


@dataclass
class Version:
    """`event` numbers the last change of state, `retry_at` is on the monotonic clock."""

    model: str
    number: int
    path: Path
    aspired: bool = True
    state: int = State.START
    error: ServingError | None = None
    event: int = 0
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


def next_step(versions: Iterable[Version], now: float) -> Version | None:
    """The version to unload, if it is available, or else to load: the new comes before the old goes."""
    versions = sorted(versions, key=lambda version: version.number)
    wanted = [version for version in versions if version.aspired]
    surplus = [version for version in versions if version.state == State.AVAILABLE and not version.aspired]
    if surplus and (not wanted or len(surplus) > 1 or any(v.state == State.AVAILABLE for v in wanted)):
        return surplus[0]
    due = [v for v in wanted if v.state in (State.START, State.LOADING) and v.retry_at <= now]
    return due[-1] if due else None
