"""Versions of a model: those that its policy wants, and the next step there without a gap in service."""

import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Event, Lock, Thread
from typing import Any

from grpc import StatusCode
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

from digit_serving.model_server.config import validate
from digit_serving.model_server.errors import ServingError
from digit_serving.model_server.flags import Options
from digit_serving.model_server.servable import Servable

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


log = logging.getLogger(__name__)


class Manager:
    """Lends loaded versions to requests, while a thread of its own loads and unloads them.

    `load(directory, version)` returns a servable that is warmed up, or raises ServingError.
    """

    def __init__(self, options: Options, load: Callable[[Path, int], Servable]) -> None:
        self._options, self._load_servable = options, load
        self._config, self._last_warning = ModelServerConfig(), ""
        self._labels: dict[tuple[str, str], int] = {}
        self._versions: dict[tuple[str, int], Version] = {}
        self._available: dict[str, list[Version]] = {}  # the newest first, for each request
        self._reloading, self._changed, self._wake = Lock(), Condition(), Event()
        Thread(target=self._work, name="manager", daemon=True).start()

    def reload(self, config: ModelServerConfig) -> None:
        """Makes `config` the only one and waits, for ever if it must, until every model new in it serves.

        Raises:
            ServingError: the configuration is not valid, or a new model failed for good.
        """
        with self._reloading, self._changed:
            validate(config, self._config)
            names, old = (
                {model.name for model in each.model_config_list.config} for each in (config, self._config)
            )
            self._labels = self._labels_of(config)
            for name in old - names:
                self._aspire(name, {})
            self._config = config
            self._wake.set()
            self._changed.wait_for(lambda: all(self._outcome(name) for name in names - old))
            outcomes = [self._outcome(name) for name in names - old]
        failed = [version for version in outcomes if version and version.state == State.END]
        if failed:
            reasons = "".join(f"{{{version} due to error: {version.error}}}, " for version in failed)
            problem = f"{len(failed)} servable(s) did not become available: {{{reasons}}}"
            raise ServingError(problem, StatusCode.UNKNOWN)

    @contextmanager
    def serving(self, spec: ModelSpec) -> Iterator[Servable]:
        """The servable asked for, which stays loaded for the block; ServingError where there is none."""
        with self._changed:
            version = self._find(spec)
            version.requests += 1
        try:
            yield version.servable
        finally:
            with self._changed:
                version.requests -= 1
                if version.state == State.UNLOADING:
                    self._changed.notify_all()

    def status(self, spec: ModelSpec) -> list[Version]:
        """The version asked for, or all that were ever known, the newest first."""
        number = spec.version.value if spec.HasField("version") else None
        if found := self._of(spec.name, number=number):
            return found
        what = "any versions" if number is None else f"version {number}"
        raise ServingError(f"Could not find {what} of model {spec.name}", StatusCode.NOT_FOUND)

    def _of(self, model: str, *states: int, number: int | None = None) -> list[Version]:
        with self._changed:
            known = [v for v in self._versions.values() if v.model == model and number in (None, v.number)]
        return sorted((v for v in known if not states or v.state in states), key=lambda v: -v.number)

    def _find(self, spec: ModelSpec) -> Version:
        if not spec.name:
            raise ServingError("ModelSpec has no name specified.")
        number = spec.version.value if spec.HasField("version") else None
        if spec.HasField("version_label"):
            number = self._labels.get((spec.name, spec.version_label))
            if number is None:
                raise ServingError(f"Unrecognized servable version label: {spec.version_label}")
        for version in self._available.get(spec.name, ()):
            if number in (None, version.number):
                return version
        request = f"Latest({spec.name})" if number is None else f"Specific({spec.name}, {number})"
        raise ServingError(f"Servable not found for request: {request}", StatusCode.NOT_FOUND)

    def _outcome(self, name: str) -> Version | None:
        return next((v for v in self._of(name, State.AVAILABLE, State.END) if v.aspired), None)

    def _labels_of(self, config: ModelServerConfig) -> dict[tuple[str, str], int]:
        models = config.model_config_list.config
        labels = {(m.name, label): number for m in models for label, number in m.version_labels.items()}
        for key, number in labels.items():
            unused = self._labels.get(key, number) == number
            free = unused and self._options.allow_version_labels_for_unavailable_models
            if not free and not self._of(key[0], State.AVAILABLE, number=number):
                problem = f"Request to assign label to version {number} of model {key[0]}, which is not"
                code = StatusCode.FAILED_PRECONDITION
                raise ServingError(f"{problem} currently available for inference", code)
        return labels

    def _work(self) -> None:
        period = self._options.file_system_poll_wait_seconds
        while True:
            if period > 0 or self._wake.is_set():
                self._wake.clear()
                self._poll()
            models = {version.model for version in list(self._versions.values())}
            steps = [next_step(self._of(model), time.monotonic()) for model in sorted(models)]
            for step in filter(None, steps):
                (self._unload if step.state == State.AVAILABLE else self._load)(step)
            if not any(steps):
                self._wake.wait(period if period > 0 else 1)

    def _poll(self) -> None:
        config = self._config
        try:
            found = {model.name: aspired(model) for model in config.model_config_list.config}
            warning = ", ".join(f"No versions of servable {name} found" for name in found if not found[name])
        except (ServingError, OSError) as error:
            found, warning = {}, f"Encountered a filesystem access error: {error}"
        if warning and warning != self._last_warning:
            log.warning("%s", warning)
        self._last_warning = warning
        with self._changed:
            for name, paths in found.items() if config is self._config else ():
                self._aspire(name, paths)

    def _aspire(self, name: str, paths: dict[int, Path]) -> None:
        for number, path in paths.items():
            known = self._versions.get((name, number))
            if known is None or (known.state == State.END and not known.aspired):
                self._versions[name, number] = Version(name, number, path)
        for version in self._of(name):
            version.aspired = version.number in paths
            if not version.aspired and version.state in (State.START, State.LOADING):
                self._move(version, State.END)

    def _load(self, version: Version) -> None:
        self._move(version, State.LOADING)
        try:
            version.servable = self._load_servable(version.path, version.number)
            self._move(version, State.AVAILABLE)
        except Exception as error:  # whatever a model's files can provoke must not end this thread
            if not isinstance(error, ServingError):
                error = ServingError(repr(error), StatusCode.INTERNAL)
            version.error = error
            log.error("Loading servable: %s failed: %s", version, version.error)
            version.attempts += 1
            version.retry_at = time.monotonic() + self._options.load_retry_interval_micros / 1e6
            if version.attempts > self._options.max_num_load_retries:
                self._move(version, State.END)

    def _unload(self, version: Version) -> None:
        self._move(version, State.UNLOADING)
        with self._changed:
            self._changed.wait_for(lambda: not version.requests)
        version.servable.close()
        version.servable = version.error = None
        self._move(version, State.END)

    def _move(self, version: Version, state: int) -> None:
        with self._changed:
            version.state = state
            self._available[version.model] = self._of(version.model, State.AVAILABLE)
            self._changed.notify_all()
        log.info("Servable version %s: %s", version, State.Name(state))
