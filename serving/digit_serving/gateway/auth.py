"""API keys: bearer authentication (RFC 6750), and the file that holds the keys' hashes."""

import fcntl
import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flask import Blueprint, g, request
from werkzeug.datastructures import Authorization

from digit_core.artifact.versions import write_atomically
from digit_serving.errors import DigitServingError
from digit_serving.gateway.bridge import Scope
from digit_serving.gateway.errors import UnauthorizedError
from digit_serving.gateway.rate_limit import RateLimiter
from digit_serving.gateway.request import RequestContext
from digit_serving.gateway.settings import parse_limits
from digit_serving.sockets import network

_NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_LINE = re.compile(rf"({_NAME_PATTERN}) ([0-9a-f]{{64}})( label)?(?: until=(\S+))?(?: limit=(\S+))?")
_RELOAD_SECONDS = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Key:
    """API key as stored: `digest` is the SHA-256 of its text, which is not stored."""

    name: str
    digest: str
    may_label: bool = False
    """True if the key may show stored answers and label them."""
    until: datetime | None = None
    """First moment at which the key is no longer valid, with a time zone; None if the key does not end."""
    limits: str = ""
    """Limits of this key's requests in place of DIGITS_RATE_LIMIT, "" if it has none."""

    @property
    def has_ended(self) -> bool:
        """True once the key is no longer valid."""
        return self.until is not None and datetime.now(UTC) >= self.until

    def __str__(self) -> str:
        """Return the key's line."""
        until = f" until={self.until.astimezone(UTC).isoformat()}" if self.until else ""
        limits = f" limit={self.limits}" if self.limits else ""
        return f"{self.name} {self.digest}{' label' * self.may_label}{until}{limits}"

    @classmethod
    def parse(cls, line: str) -> "Key":
        """Return the key of a line. Raise ValueError."""
        if not (match := _LINE.fullmatch(line)):
            raise ValueError("expected a name and a hash")
        name, digest, label, until, limits = match.groups()
        if limits:
            parse_limits(limits)
        # A time without a time zone, written by hand, is this machine's.
        end = datetime.fromisoformat(until).astimezone() if until else None
        return cls(name, digest, bool(label), end, limits or "")


class KeyFile:
    """File of API keys, one line `name sha256` per key, followed by `label` if the key may label, by
    `until=<time>` if it ends, and by `limit=<limits>` if it has its own.

    Methods raise OSError, and DigitServingError for a malformed file or a change that contradicts it.
    Changes replace the file atomically, because running gateways read it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Key]:
        """Return the keys by name."""
        keys = {}
        for number, line in enumerate(self.path.read_text(errors="replace").splitlines(), 1):
            try:
                key = Key.parse(line)
            except ValueError as error:
                raise DigitServingError(f"{self.path}: line {number}: {error}") from error
            keys[key.name] = key
        return keys

    def fingerprint(self) -> tuple[int, int, int]:
        """Return the file's inode, modification time and size: any change alters them. Raise OSError."""
        status = self.path.stat()
        return status.st_ino, status.st_mtime_ns, status.st_size

    def add(
        self, name: str, *, may_label: bool = False, until: datetime | None = None, limits: str = ""
    ) -> str:
        """Create a key, store its hash and return the key itself."""
        if not re.fullmatch(_NAME_PATTERN, name):
            raise DigitServingError(
                f"{name!r} is not a valid name; use up to 64 letters, digits, dots, hyphens and underscores"
            )
        with self._locked_update() as keys:
            if name in keys:
                raise DigitServingError(f"a key named {name} already exists")
            key = f"digits_{secrets.token_urlsafe(32)}"
            keys[name] = Key(name, _digest(key), may_label, until, limits)
        return key

    def change(self, name: str, **given: Any) -> None:
        """Replace these fields of a key."""
        with self._locked_update() as keys:
            if name not in keys:
                raise DigitServingError(f"no key is named {name}")
            keys[name] = replace(keys[name], **given)

    def remove(self, name: str) -> None:
        """Revoke a key."""
        with self._locked_update() as keys:
            if keys.pop(name, None) is None:
                raise DigitServingError(f"no key is named {name}")

    @contextmanager
    def _locked_update(self) -> Iterator[dict[str, Key]]:
        """Yield the keys under an exclusive lock; write them durably after the block."""
        with self.path.with_name(f".{self.path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            keys = self.read() if self.path.exists() else {}
            yield keys
            write_atomically(self.path, "".join(f"{key}\n" for key in keys.values()))


class KeyVerifier:
    """Verifies API keys against a key file, and checks once a second for changes to the file. Thread-safe.

    The constructor raises OSError and DigitServingError if the file is unusable. If the file becomes unusable
    later, its last valid content stays in force. `clock` returns seconds, like time.monotonic.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = KeyFile(path)
        self._clock = clock
        self._fingerprint = self._file.fingerprint()
        self._keys: Mapping[str, Key] = self._file.read()
        self._next_check = clock() + _RELOAD_SECONDS

    def find(self, text: str) -> Key | None:
        """Return the key of this text, which may have ended, or None if the file does not contain it."""
        if self._clock() >= self._next_check:
            self._next_check = self._clock() + _RELOAD_SECONDS
            self._reload_if_changed()
        presented = _digest(text)
        # Constant time: compare with every stored hash, so that the duration reveals nothing.
        found = [key for key in self._keys.values() if hmac.compare_digest(presented, key.digest)]
        return found[0] if found else None

    def authenticate(self, given: Authorization | None) -> Key | None:
        """Return the key of the header Authorization, which may have ended, or None if the file has none."""
        return self.find(given.token) if given and given.type == "bearer" and given.token else None

    def has_key(self, scope: Scope) -> bool:
        """True for an ASGI request with a valid key."""
        given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"]
        key = self.authenticate(Authorization.from_header(given[0])) if len(given) == 1 else None
        return key is not None and not key.has_ended

    def _reload_if_changed(self) -> None:
        try:
            fingerprint = self._file.fingerprint()
            if fingerprint != self._fingerprint:
                self._keys, self._fingerprint = self._file.read(), fingerprint
        except (OSError, DigitServingError) as error:
            _log.error("the key file is unusable; the previous keys remain valid: %s", error)


def protect(api: Blueprint, verifier: KeyVerifier | None, limiter: RateLimiter | None) -> None:
    """Require a key on every route of the API, and limit each caller's rate; None switches either off.

    `g.context` gets the key's name. A caller is identified by its key, or without a valid one by its network.
    """

    @api.before_request
    def check() -> None:
        context: RequestContext = g.context
        limits = ""
        # CORS preflight requests carry no credentials.
        if verifier and request.method != "OPTIONS":
            key = verifier.authenticate(request.authorization)
            # Log and metrics name a key even after its end.
            context.key = key.name if key else ""
            context.has_unknown_key = key is None and request.authorization is not None
            if key is None or key.has_ended:
                if limiter:
                    limiter.check(f"without key: {network(request.remote_addr)}")
                raise UnauthorizedError(_refusal(key))
            context.may_label, limits = key.may_label, key.limits
        if limiter:
            limiter.check(context.key or network(request.remote_addr), limits)


def _refusal(key: Key | None) -> str:
    if key and key.until:
        return f"The key {key.name} ended at {key.until.astimezone(UTC):%Y-%m-%d %H:%M} UTC. Ask for another."
    if "Authorization" in request.headers:
        return "This service has no such key. Check its spelling, or ask the operator for another."
    return "Send a key of this service as `Authorization: Bearer <key>`."


def _digest(key: str) -> str:
    # A fast, unsalted hash is enough: a key is 256 random bits, too many to guess.
    return hashlib.sha256(key.encode()).hexdigest()
