"""Peaks: what the reader finds on a page. NumPy only, so that `tfserving` needs no OpenCV."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CLASSES = 11
"""Classes of the reader: the ten digits, and signs such as points and slashes."""
SIGN = 10


@dataclass(frozen=True, slots=True)
class Peaks:
    """Peaks that the reader finds on a page.

    `scores` float32 [k], in 0..1; `classes` float32 [k, 11], probabilities; `boxes` float32 [k, 4]: left,
    top, width and height in pixels of the page.
    """

    scores: NDArray[np.float32]
    classes: NDArray[np.float32]
    boxes: NDArray[np.float32]

    def __len__(self) -> int:
        """Return the number of peaks."""
        return len(self.scores)

    def __getitem__(self, chosen: Sequence[int] | NDArray[np.intp]) -> "Peaks":
        """Return the chosen peaks."""
        return Peaks(self.scores[chosen], self.classes[chosen], self.boxes[chosen])

    def scaled(self, factor: float) -> "Peaks":
        """Return the peaks of a page that is larger by this factor."""
        return Peaks(self.scores, self.classes, self.boxes * np.float32(factor))
