"""Memory budget: bytes that a process holds for its callers, and the limit of its container."""

from dataclasses import dataclass
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_LIMIT_FILES = ("memory.max", "memory/memory.limit_in_bytes")
"""Files of cgroup versions 2 and 1."""
_UNLIMITED = 2**60
"""Limits from here on are none; version 1 states one near 2**63."""


@dataclass(slots=True)
class MemoryBudget:
    """Number of bytes, of `limit` in all."""

    limit: int
    held: int = 0

    def hold(self, size: int) -> bool:
        """Count so many bytes more, or fewer. Return False, and count none, if they do not fit."""
        if size > 0 and self.held + size > self.limit:
            return False
        self.held += size
        return True


def container_memory(root: Path = _CGROUP) -> int | None:
    """Return the memory limit of this container, in bytes, or None without one."""
    for path in (root / name for name in _LIMIT_FILES):
        if path.exists():
            text = path.read_text().strip()
            return int(text) if text != "max" and int(text) < _UNLIMITED else None
    return None
