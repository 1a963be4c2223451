"""Memory growth: a linear fit of resident memory to the age of processes."""

import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

# Seconds at the start that are left out: the first versions of a model increase memory.
_WARM_UP = 100.0


@dataclass
class Memory:
    """Resident megabytes of processes by process ID, at ages in seconds."""

    _first_seen: dict[int, float] = field(default_factory=dict)
    _samples: dict[int, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    def sample(self, pid: int) -> None:
        """Record the process's current memory."""
        now = time.monotonic()
        age = now - self._first_seen.setdefault(pid, now)
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        self._samples[pid].append((age, pages * 4096 / 2**20))

    def last(self) -> float:
        """Return the last sample of the youngest process, in megabytes."""
        return self._samples[max(self._samples, key=self._first_seen.__getitem__)][-1][1]

    def slope(self) -> tuple[float, float]:
        """Return megabytes per minute and their standard error, over all processes after their warm-up."""
        ages, sizes = [], []
        for samples in self._samples.values():
            warm = np.array([sample for sample in samples if sample[0] > _WARM_UP])
            if len(warm) > 2:
                # Centre each process on its own mean: differences between processes are no growth.
                ages.append(warm[:, 0] - warm[:, 0].mean())
                sizes.append(warm[:, 1] - warm[:, 1].mean())
        age, size = np.concatenate(ages), np.concatenate(sizes)
        slope = (age @ size) / (age @ age)
        error = np.sqrt(((size - slope * age) ** 2).sum() / (len(age) - len(ages) - 1) / (age @ age))
        return 60 * float(slope), 60 * float(error)
