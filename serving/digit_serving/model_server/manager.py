"""Model manager: version policies, and loading and unloading of versions without a gap in service."""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Event, Thread
from typing import Any

from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

from digit_core.artifact.models_config import selected_by
from digit_core.artifact.versions import list_versions
from digit_serving.errors import ServingError
from digit_serving.model_server.config import validate
from digit_serving.model_server.flags import Options
from digit_serving.model_server.servable import Servable

State = ModelVersionStatus.State
log = logging.getLogger(__name__)

_UNLOAD_SECONDS = 30.0
"""Seconds that an unloading version's calls have to end: the default time limit of the REST API."""


@dataclass
class Version:
    """State of one version of a model."""

    model: str
    number: int
    path: Path
    aspired: bool = True
    """True if the version policy selects this version (TensorFlow Serving's term)."""
    state: int = State.START
    error: ServingError | None = None
    servable: Any = None
    active_requests: int = 0

    def __str__(self) -> str:
        return f"{{name: {self.model} version: {self.number}}}"


def aspired_versions(model: ModelConfig) -> dict[int, Path]:
    """Return the directory of each version that the model's policy selects.

    Raises ServingError or OSError if the base path does not exist or is unreadable.
    """
    base = Path(model.base_path)
    if not base.exists():
        raise ServingError(f"Could not find base path {base} for servable {model.name}")
    found = {number: version.path for number, version in list_versions(base).items()}
    if not found:
        # list_versions finds nothing in a folder that is unreadable or has just been moved; iterdir raises.
        next(base.iterdir(), None)
    selected = selected_by(model.model_version_policy, found)
    return {number: path for number, path in found.items() if number in selected}


def _names(config: ModelServerConfig) -> set[str]:
    return {model.name for model in config.model_config_list.config}


def next_action(versions: Sequence[Version], labelled: Collection[int] = ()) -> Version | None:
    """Return the next version to unload (one that is available) or to load (any other), or None.

    Availability-preserving policy: a version is unloaded once another one is available. `versions` are all
    versions of one model, newest first. Labelled versions are loaded first: most callers wait for them.
    """
    available = [version for version in versions if version.state == State.AVAILABLE]
    surplus = [version for version in available if not version.aspired]
    replaced = len(available) > len(surplus) or not any(version.aspired for version in versions)
    if surplus and (replaced or len(surplus) > 1):
        return surplus[-1]
    waiting = [version for version in versions if version.aspired and version.state == State.START]
    return max(waiting, key=lambda version: version.number in labelled, default=None)


class Manager:
    """Registry of versions. A thread loads them, and each is unloaded in a thread of its own; requests lease
    those that are available.

    `load(directory, version)` returns a servable that is warmed up, or raises ServingError.
    """

    def __init__(self, options: Options, load: Callable[[Path, int], Servable]) -> None:
        self._options, self._load_servable = options, load
        self._config, self._last_warning = ModelServerConfig(), ""
        self._labels: dict[tuple[str, str], int] = {}
        self._versions: dict[tuple[str, int], Version] = {}
        self._changed, self._wake = Condition(), Event()
        Thread(target=self._run, name="manager", daemon=True).start()

    def configure(self, config: ModelServerConfig) -> set[str]:
        """Replace the configuration, and return the names of its new models, which load from now on.

        Raises ServingError and changes nothing if the configuration is invalid. A label whose new version is
        not available stays where it is: ServingError is raised once the rest is replaced.
        """
        with self._changed:
            validate(config, self._config)
            old_names, new_names = _names(self._config), _names(config)
            self._labels, refused = self._assign_labels(config)
            for name in old_names - new_names:
                self._set_aspired(name, {})
            self._config = config
            self._wake.set()
        if refused:
            raise ServingError(", ".join(refused), "FAILED_PRECONDITION")
        return new_names - old_names

    def reload(self, config: ModelServerConfig) -> None:
        """Replace the configuration, and wait without a timeout until every new model is available.

        Raises ServingError if the configuration is invalid, or a new model has failed to load.
        """
        with self._changed:
            added = self.configure(config)
            # Another reload may remove a model that this one has added.
            self._changed.wait_for(lambda: all(self._settled(name) for name in added & _names(self._config)))
            settled = [self._settled(name) for name in added]
        failed = [version for version in settled if version and version.state == State.END]
        if failed:
            reasons = ", ".join(f"{version} due to error: {version.error}" for version in failed)
            raise ServingError(f"{len(failed)} servable(s) did not become available: {reasons}", "UNKNOWN")

    @contextmanager
    def lease(self, spec: ModelSpec) -> Iterator[Servable]:
        """Keep the servable that `spec` selects loaded during the block.

        Raises ServingError if no available version matches `spec`.
        """
        with self._changed:
            version = self._find(spec)
            version.active_requests += 1
        try:
            yield version.servable
        finally:
            with self._changed:
                version.active_requests -= 1
                if version.state == State.UNLOADING:
                    self._changed.notify_all()

    def status(self, spec: ModelSpec) -> list[Version]:
        """Return the version that `spec` names, or all known versions of the model, newest first.

        Versions that are unloaded stay known. Raises ServingError for an unknown model, version or label.
        """
        number = spec.version.value if spec.HasField("version") else None
        if spec.HasField("version_label"):
            number = self._labels.get((spec.name, spec.version_label))
            if number is None:
                missing = f"version label {spec.version_label}"
                raise ServingError(f"Could not find {missing} of model {spec.name}", "NOT_FOUND")
        if found := [each for each in self._select(spec.name) if number in (None, each.number)]:
            return found
        missing = "any versions" if number is None else f"version {number}"
        raise ServingError(f"Could not find {missing} of model {spec.name}", "NOT_FOUND")

    def _select(self, model: str, *states: int) -> list[Version]:
        """Return the model's versions in these states (default: any), newest first."""
        with self._changed:
            known = [each for each in self._versions.values() if each.model == model]
        return sorted((v for v in known if not states or v.state in states), key=lambda v: -v.number)

    def _find(self, spec: ModelSpec) -> Version:
        if not spec.name:
            raise ServingError("ModelSpec has no name specified.")
        number = spec.version.value if spec.HasField("version") else None
        if spec.HasField("version_label"):
            number = self._labels.get((spec.name, spec.version_label))
            if number is None:
                # Clients recognise an unknown label by this text: its code is not NOT_FOUND.
                raise ServingError(f"Unrecognized servable version label: {spec.version_label}")
        for version in self._select(spec.name, State.AVAILABLE):
            if number in (None, version.number):
                return version
        request = f"Latest({spec.name})" if number is None else f"Specific({spec.name}, {number})"
        raise ServingError(f"Servable not found for request: {request}", "NOT_FOUND")

    def _settled(self, name: str) -> Version | None:
        """Return an aspired version of the model that is available or has failed to load, or None."""
        return next((v for v in self._select(name, State.AVAILABLE, State.END) if v.aspired), None)

    def _assign_labels(self, config: ModelServerConfig) -> tuple[dict[tuple[str, str], int], list[str]]:
        """Return the version of each label, and a sentence for each label that can't move.

        A refused label keeps its version, if it has one: it must not hold up the labels of other models.
        """
        models = config.model_config_list.config
        labels = {(m.name, label): number for m in models for label, number in m.version_labels.items()}
        refused = []
        for key, number in list(labels.items()):
            is_unmoved = self._labels.get(key, number) == number
            may_wait = is_unmoved and self._options.allow_version_labels_for_unavailable_models
            if not may_wait and number not in (v.number for v in self._select(key[0], State.AVAILABLE)):
                message = f"label {key[1]} of model {key[0]} can't be assigned to version {number},"
                refused.append(f"{message} which is not available")
                del labels[key]
                labels |= {key: self._labels[key]} if key in self._labels else {}
        return labels, refused

    def _run(self) -> None:
        while True:
            period = self._options.file_system_poll_wait_seconds
            if period > 0 or self._wake.is_set():
                self._wake.clear()
                self._poll()
            version = self._next_action()
            if version is None:
                self._wake.wait(period if period > 0 else 1)
            elif version.state == State.AVAILABLE:
                self._set_state(version, State.UNLOADING)
                Thread(target=self._unload, args=[version], name=f"unload {version}", daemon=True).start()
            else:
                self._load(version)

    def _next_action(self) -> Version | None:
        """Return the next version to unload or to load, or None.

        Unloading comes first, since it takes no time in this thread. Then comes the model with the fewest
        available versions: the many versions of one owner must not hold up the first version of another.
        """
        labelled, models = self._labels.items(), {each.model for each in list(self._versions.values())}
        actions = []
        for model in sorted(models):
            known = self._select(model)
            version = next_action(known, [number for (name, _), number in labelled if name == model])
            if version:
                available = sum(each.state == State.AVAILABLE for each in known)
                actions.append((version.state != State.AVAILABLE, available, version))
        return min(actions, key=lambda action: action[:2], default=(False, 0, None))[2]

    def _poll(self) -> None:
        config = self._config
        try:
            found = {model.name: aspired_versions(model) for model in config.model_config_list.config}
            warning = ", ".join(f"No versions of servable {name} found" for name in found if not found[name])
        except (ServingError, OSError) as error:
            found, warning = {}, f"Encountered a filesystem access error: {error}"
        if warning and warning != self._last_warning:
            log.warning("%s", warning)
        self._last_warning = warning
        with self._changed:
            # A reload during the poll makes the poll's result obsolete.
            if config is self._config:
                for name, paths in found.items():
                    self._set_aspired(name, paths)

    def _set_aspired(self, name: str, paths: dict[int, Path]) -> None:
        for number, path in paths.items():
            known = self._versions.get((name, number))
            # A version that comes back while it is unloaded is loaded anew, beside the one in use.
            gone = (State.UNLOADING, State.END)
            if known is None or (known.state in gone and not known.aspired):
                self._versions[name, number] = Version(name, number, path)
        for version in self._select(name):
            version.aspired = version.number in paths
            if not version.aspired and version.state in (State.START, State.LOADING):
                self._set_state(version, State.END)

    def _load(self, version: Version) -> None:
        """Load the version. Between the retries no other one is loaded, as in TensorFlow Serving."""
        self._set_state(version, State.LOADING)
        for retries_left in range(max(self._options.max_num_load_retries, 0), -1, -1):
            try:
                version.servable = self._load_servable(version.path, version.number)
                self._set_state(version, State.AVAILABLE)
                return
            except ServingError as error:
                version.error = error
            except Exception as error:  # a broken model may raise any type, and the thread must survive
                version.error = ServingError(repr(error), "INTERNAL")
            log.error("Loading servable: %s failed: %s", version, version.error)
            if retries_left:
                time.sleep(self._options.load_retry_interval_micros / 1e6)
        self._set_state(version, State.END)

    def _unload(self, version: Version) -> None:
        """Close the servable once its calls have ended. Cancel those that have not after _UNLOAD_SECONDS."""
        with self._changed:
            if not self._changed.wait_for(lambda: not version.active_requests, _UNLOAD_SECONDS):
                words = "Cancelling %d calls of %s: they have not ended within %g s of its unloading"
                log.warning(words, version.active_requests, version, _UNLOAD_SECONDS)
        version.servable.close()
        version.servable = version.error = None
        self._set_state(version, State.END)

    def _set_state(self, version: Version, state: int) -> None:
        with self._changed:
            version.state = state
            self._changed.notify_all()
        log.info("Servable version %s: %s", version, State.Name(state))
