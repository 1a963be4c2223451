"""Who may ask, and how often."""

import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from flask import Blueprint, g, request

from digit_serving.gateway.errors import UnauthorizedError
from digit_serving.gateway.settings import Settings


def guard(api: Blueprint, settings: Settings) -> None:
    """Have the routes ask for a key, and bound each caller's rate, where the settings want it.

    A caller is its key where keys are asked for, else its address.
    """
    if settings.api_keys:
        keys = Keys(settings.api_keys)

        @api.before_request
        def ask_for_key() -> None:
            # Browsers ask without a key what they may ask with one.
            if request.method != "OPTIONS":
                g.context.key = _name_of_key(keys)

    if settings.rate_limit:
        # It takes a while to import.
        from digit_serving.gateway.rate_limit import RateLimiter, network

        rates = RateLimiter(settings.rate_limit, settings.rate_limit_store)

        @api.before_request
        def bound_rate() -> None:
            rates.check(g.context.key or network(request.remote_addr))


def _name_of_key(keys: "Keys") -> str:
    shown = request.authorization
    name = keys.name_of(shown.token) if shown and shown.type == "bearer" and shown.token else None
    if name is None:
        raise UnauthorizedError("Send a key of this service as `Authorization: Bearer <key>`.")
    return name


_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_LINE = re.compile(rf"({_NAME}) ([0-9a-f]{{64}})")
_SECONDS = 1.0

_log = logging.getLogger(__name__)


class KeyFileError(Exception):
    """The file of keys can't be used so, or not changed so."""


class KeyFile:
    """It is replaced whenever it changes, never written to, since gateways read it while they run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, str]:
        """The hashes by their names. Raises OSError, KeyFileError."""
        hashes = {}
        for number, line in enumerate(self.path.read_text(errors="replace").splitlines(), 1):
            if not (found := _LINE.fullmatch(line)):
                raise KeyFileError(f"{self.path}: line {number} is no name and hash")
            hashes[found[1]] = found[2]
        return hashes

    def stamp(self) -> tuple[int, int, int]:
        """What is another one after each change. Raises OSError."""
        status = self.path.stat()
        return status.st_ino, status.st_mtime_ns, status.st_size

    def add(self, name: str) -> str:
        """A new key with that name; nobody can tell it again. Raises OSError, KeyFileError."""
        if not re.fullmatch(_NAME, name):
            raise KeyFileError(f"{name!r} is no name: up to 64 letters, digits, dots, hyphens, underscores")
        with self._changing() as hashes:
            if name in hashes:
                raise KeyFileError(f"there is a key {name} already")
            key = f"digits_{secrets.token_urlsafe(32)}"
            hashes[name] = _digest(key)
        return key

    def remove(self, name: str) -> None:
        """Forget a key. Raises OSError, KeyFileError."""
        with self._changing() as hashes:
            if hashes.pop(name, None) is None:
                raise KeyFileError(f"there is no key {name}")

    @contextmanager
    def _changing(self) -> Iterator[dict[str, str]]:
        """The hashes, written after the block; who else changes them waits meanwhile."""
        with self.path.with_name(f".{self.path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            hashes = self.read() if self.path.exists() else {}
            yield hashes
            new = self.path.with_name(f".{self.path.name}.new")
            with new.open("w") as file:
                file.writelines(f"{name} {digest}\n" for name, digest in hashes.items())
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)


class Keys:
    """The keys of a file, which is looked at again every second. Threads may share it.

    Raises OSError and KeyFileError where the file is of no use at first. Where it is later, what it said
    before holds.
    """

    def __init__(self, path: Path) -> None:
        self._file = KeyFile(path)
        self._stamp = self._file.stamp()
        self._hashes: Mapping[str, str] = self._file.read()
        self._looks_again = time.monotonic() + _SECONDS

    def name_of(self, key: str) -> str | None:
        """The name of a key, if it is one of these."""
        if time.monotonic() >= self._looks_again:
            self._looks_again = time.monotonic() + _SECONDS
            self._look()
        shown = _digest(key)
        # All are compared, and to their ends, so that the time it takes tells nothing.
        names = [name for name, kept in self._hashes.items() if hmac.compare_digest(shown, kept)]
        return names[0] if names else None

    def _look(self) -> None:
        try:
            stamp = self._file.stamp()
            if stamp != self._stamp:
                self._hashes, self._stamp = self._file.read(), stamp
        except (OSError, KeyFileError) as error:
            _log.error("the keys stay what they were: %s", error)


def _digest(key: str) -> str:
    # A key is 256 random bits: who has its hash can't guess it, however fast that is, with or without salt.
    return hashlib.sha256(key.encode()).hexdigest()
