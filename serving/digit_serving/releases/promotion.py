"""Moving a label to another version, in the order that leaves no gap: load, wait, move, verify, unload."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from digit_client.tfserving.model_server import ModelServer
from digit_serving.releases.config import ConfigFile, ModelsConfig, ReleaseError
from digit_serving.releases.readiness import Watch
from digit_serving.releases.versions import published


@dataclass(frozen=True, slots=True)
class Mover:
    """A move is made and seen in the server within `seconds`, or else taken back, whatever it raises.

    Without a server, for one that doesn't run, only the file is changed. `say` tells the user what goes on.
    """

    models: Path
    server: ModelServer | None
    seconds: float
    say: Callable[[str], None]

    def promote(self, version: int, label: str) -> None:
        """Puts the label on the version. Raises ReleaseError, or DigitError where no server answers."""
        self._move(label, lambda config: config.promoting(version, label))

    def rollback(self, label: str) -> None:
        """Puts the label back on the version that had it before. Raises as `promote` does."""
        self._move(label, lambda config: config.rolling_back(label))

    def _move(self, label: str, change: Callable[[ModelsConfig], ModelsConfig]) -> None:
        file = ConfigFile(self.models)
        with file.locked(self.seconds):
            old = file.read()
            new = change(old)
            version = new.labels[label]
            if version not in published(self.models):
                raise ReleaseError(f"there is no version {version} in {self.models}")
            if self.server:
                self._lead(Watch(self.server, self.seconds), file, old, new, label)
            # Nothing else: callers who name no version get the newest that is loaded.
            file.write(str(new.loading(new.labels.values())))
        self.say(f"Version {version} is {label}.")

    def _lead(self, watch: Watch, file: ConfigFile, old: ModelsConfig, new: ModelsConfig, label: str) -> None:
        """Until the server has followed; the versions that are loaded stay so."""
        text, version = file.text(), new.labels[label]
        loaded = old.wanted(published(self.models))
        known = watch.versions().get(version)
        try:
            if version in loaded:
                known = None
            else:
                file.write(str(old.loading({*loaded, version})))
            self.say(f"Waiting for the model server to load version {version} ...")
            watch.until_available(version, known)
            file.write(str(new.loading({*loaded, version})))
            self.say(f"Waiting for it to answer for {label} with version {version} ...")
            watch.until_labelled(label, version)
        except BaseException:
            file.write(text)
            self.say(f"Taken back: {file.path} is as it was.")
            raise
