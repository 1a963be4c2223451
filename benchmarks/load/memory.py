"""How the memory of processes grows with their age."""

import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

# Until then it grows with what is met for the first time, such as several versions of a model.
_YOUTH_SECONDS = 100.0


@dataclass
class Memory:
    """Resident megabytes of processes by their number, at ages in seconds."""

    _born: dict[int, float] = field(default_factory=dict)
    _samples: dict[int, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    def sample(self, pid: int) -> None:
        """Note how much the process has now."""
        now = time.monotonic()
        age = now - self._born.setdefault(pid, now)
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        self._samples[pid].append((age, pages * 4096 / 2**20))

    def last(self) -> float:
        """What the process that was born last had at last."""
        return self._samples[max(self._samples, key=self._born.__getitem__)][-1][1]

    def slope(self) -> tuple[float, float]:
        """Megabytes a minute and their standard error, of all processes together once they are grown up."""
        ages, sizes = [], []
        for samples in self._samples.values():
            grown = np.array([sample for sample in samples if sample[0] > _YOUTH_SECONDS])
            if len(grown) > 2:
                # Each process about its own mean, so that a large one does not count as an old one.
                ages.append(grown[:, 0] - grown[:, 0].mean())
                sizes.append(grown[:, 1] - grown[:, 1].mean())
        age, size = np.concatenate(ages), np.concatenate(sizes)
        slope = (age @ size) / (age @ age)
        error = np.sqrt(((size - slope * age) ** 2).sum() / (len(age) - len(ages) - 1) / (age @ age))
        return 60 * float(slope), 60 * float(error)
