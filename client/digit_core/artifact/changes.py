"""Changes of labels, with their time and user, as one JSON object a line; and the way back."""

import getpass
import json
import os
import re
import shlex
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from digit_core.artifact.models_config import ModelsConfig
from digit_core.artifact.traffic import Traffic

_SECRETS = re.compile(r"(://)(?:.*@)?([^?]*)(?:\?.*)?")


@dataclass(frozen=True, slots=True)
class Change:
    """Change of a label of a model, or of its share of the requests, at which the version stays.

    `version` is None once no version has the label, `previous` if none had it.
    """

    time: str
    """Time of the change in ISO 8601, in UTC."""
    model: str
    label: str
    version: int | None
    previous: int | None
    by: str
    command: str
    share: float | None = None
    """Share of the requests that the label answers from now on, 0..1; None if the label moved."""

    def __str__(self) -> str:
        """Return the change's line."""
        members = asdict(self)
        if self.share is None:
            del members["share"]
        return json.dumps(members, ensure_ascii=False)


def between(old: ModelsConfig, new: ModelsConfig) -> Iterator[Change]:
    """Yield the changes that lead from one configuration to another, made by this process now."""
    time = datetime.now(UTC).isoformat(timespec="seconds")
    for model in sorted({*old.base_paths, *new.base_paths}):
        before, after = old.labels(model), new.labels(model)
        for label in sorted({*before, *after}):
            if before.get(label) != after.get(label):
                yield Change(time, model, label, after.get(label), before.get(label), _user(), _command())


def of_shares(old: Traffic, new: Traffic, labels: Callable[[str], Mapping[str, int]]) -> Iterator[Change]:
    """Yield the changes that lead from some shares to others; `labels` gives a model's versions by label."""
    time = datetime.now(UTC).isoformat(timespec="seconds")
    for model in sorted({*old, *new}):
        before, after = old.get(model, {}), new.get(model, {})
        for label in sorted({*before, *after}):
            share, version = after.get(label, 0.0), labels(model).get(label)
            if before.get(label, 0.0) != share:
                yield Change(time, model, label, version, version, _user(), _command(), share)


def parse(text: str) -> Iterator[Change]:
    """Yield the changes of a file's lines. Damaged lines are left out."""
    for line in text.splitlines():
        try:
            yield Change(**json.loads(line))
        except (TypeError, ValueError):
            continue


def previous(changes: Iterable[Change], current: int | None) -> int | None:
    """Return the version that had a label before its current one, or None if that is unknown.

    `changes` are those of this label, oldest first. A change back to the version before undoes the change
    between, so that rollbacks go ever further back. The last change is missing if its process was killed.
    """
    versions: list[int] = []
    moved = (change for change in changes if change.share is None)
    moves = [number for change in moved for number in (change.previous, change.version)]
    for number in (*moves, current):
        if number is None:
            versions.clear()
        elif versions[-2:-1] == [number]:
            versions.pop()
        elif versions[-1:] != [number]:
            versions.append(number)
    return versions[-2] if len(versions) > 1 else None


def _user() -> str:
    """Return DIGITS_USER, or user@host if it is unset."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())  # a container's user without a name
    return os.environ.get("DIGITS_USER") or f"{name}@{socket.gethostname()}"


def _command() -> str:
    """Return the command line of this process, without users, passwords and queries in URLs."""
    program = Path(sys.argv[0]).name.replace("__main__.py", "digits")
    return shlex.join([program, *(_SECRETS.sub(r"\1\2", argument) for argument in sys.argv[1:])])
