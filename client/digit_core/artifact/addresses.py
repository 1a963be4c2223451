"""Addresses of a running `digits up`, which it records in its models folder for the commands beside it."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

_FILE = ".digits-up.json"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Addresses of both services of `digits up`, and its default model."""

    gateway: str
    """URL of the gateway."""
    model_server: str
    """gRPC address of the model server, host:port."""
    default_model: str
    """Name of the model that answers callers who name none."""


@dataclass(frozen=True, slots=True)
class Address:
    """Address of a service and its source, such as an option or a variable, both for messages."""

    value: str
    source: str

    def __str__(self) -> str:
        return f"{self.value} ({self.source})"

    def explain(self, failure: object) -> str:
        """Return the message of a failure at this address."""
        return f"{str(failure).removesuffix('.')}; the address is {self}"


@contextmanager
def recorded(root: Path, addresses: Addresses) -> Iterator[None]:
    """Record the addresses in a models folder during the block; a read-only folder stays without a record.

    A lock marks the record as current. The kernel releases it with the process, however that ends.
    """
    import fcntl

    file, new = root / _FILE, root / f"{_FILE}.{os.getpid()}"
    try:
        stream = new.open("w")
    except OSError:
        yield
        return
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.write(json.dumps(asdict(addresses)) + "\n")
        stream.flush()
        new.replace(file)
        try:
            yield
        finally:
            # Another `digits up` of the same folder may have replaced the file.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(stream.fileno()), file.stat()):
                    file.unlink()


def read(root: Path) -> Addresses | None:
    """Return what a running `digits up` has recorded in a models folder, None if none runs."""
    try:
        with (root / _FILE).open() as stream:
            # Lazy import: Windows has no fcntl, and no `digits up`.
            import fcntl

            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return Addresses(**json.load(stream))
    except (OSError, TypeError, ValueError):
        return None
    return None


def find(root: Path, service: Literal["gateway", "model_server"], default: str) -> Address:
    """Return the address of a service of `digits up`, or the default one if none runs."""
    if found := read(root):
        return Address(getattr(found, service), f"that of `digits up` with {root}")
    return Address(default, "the default")
