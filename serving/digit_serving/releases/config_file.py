"""The file models.config among the versions: whole at any instant, and changed by one process at a time."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from digit_serving.releases.config import ModelsConfig
from digit_serving.releases.errors import ReleaseError

_PAUSE = 0.1
_PATIENCE = 10.0


class ConfigFile:
    """The model server reads it again and again, so it is replaced, never written to."""

    def __init__(self, models: Path) -> None:
        self.path = models / "models.config"

    def text(self) -> str:
        """Raises ReleaseError where there is none."""
        try:
            return self.path.read_text()
        except FileNotFoundError:
            raise ReleaseError(
                f"there is no {self.path}: `digits up` makes it, and `docker compose up`"
            ) from None

    def read(self) -> ModelsConfig:
        """Raises ReleaseError where there is none, or where it is of no use."""
        text = self.text()
        try:
            return ModelsConfig.parse(text)
        except ReleaseError as error:
            raise ReleaseError(f"{self.path}: {error}") from error

    @contextmanager
    def locked(self, seconds: float) -> Iterator[None]:
        """Keeps other processes from changing it during the block; ReleaseError if one of them takes longer.

        The lock goes with the process, however that ends.
        """
        end = time.monotonic() + seconds
        # Not the file itself: it is another one after each change.
        with self.path.with_name(".models.config.lock").open("w") as lock:
            while not _lock(lock.fileno()):
                if time.monotonic() > end:
                    raise ReleaseError(f"{self.path} is being changed by somebody else, after {seconds:g} s")
                time.sleep(_PAUSE)
            yield

    def write(self, text: str) -> None:
        """Replaces it, on the disk as well. Only for who has it locked."""
        new = self.path.with_name(".models.config.new")
        with new.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)
        sync(self.path.parent)


def prepared(models: Path) -> ConfigFile:
    """The folder's file: made where there is none, put right where the folder was moved. Raises OSError."""
    file, base_path = ConfigFile(models), models.resolve()
    with file.locked(_PATIENCE):
        if not file.path.exists():
            file.write(str(ModelsConfig.of_newest(base_path)))
        elif (config := file.read()).base_path != base_path:
            file.write(str(config.at(base_path)))
    return file


def sync(folder: Path) -> None:
    """Returns when the names in the folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
