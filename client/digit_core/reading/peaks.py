"""Peaks: what the reader finds on a page. NumPy suffices, so that `tfserving` needs no OpenCV."""

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
    top, width and height in pixels of the page. `line_weights` float32 [m] are the weights of a line's
    certainty, from a reader that has them.
    """

    scores: NDArray[np.float32]
    classes: NDArray[np.float32]
    boxes: NDArray[np.float32]
    line_weights: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        """Return the number of peaks."""
        return len(self.scores)

    def __getitem__(self, chosen: Sequence[int] | NDArray[np.intp]) -> "Peaks":
        """Return the chosen peaks."""
        return Peaks(self.scores[chosen], self.classes[chosen], self.boxes[chosen], self.line_weights)

    def without(self, others: Sequence[int] | NDArray[np.intp]) -> "Peaks":
        """Return all peaks except these, in their order."""
        return self[np.delete(np.arange(len(self)), others)]

    def __add__(self, others: "Peaks") -> "Peaks":
        """Return these peaks, followed by the others."""
        return Peaks(
            np.concatenate((self.scores, others.scores)),
            np.concatenate((self.classes, others.classes)),
            np.concatenate((self.boxes, others.boxes)),
            self.line_weights,
        )

    def scaled(self, factor: float) -> "Peaks":
        """Return the peaks on a page that is larger by this factor."""
        return Peaks(self.scores, self.classes, self.boxes * np.float32(factor), self.line_weights)
