"""What a picture would be if nothing were drawn on it, and how far it departs from that."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client.errors import NoDigitError

_GRID = 48
_ROUNDS = 4
# Small enough to be quick, and large enough that a thin pen's colour still shows.
_SMALL = 192


def contrast(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far each pixel departs from the paper towards the ink's colour, in levels: float32 [h, w].

    Takes float32 [h, w] or [h, w, 3] in 0..255. Only the ink's direction counts: glare and shadow depart
    another way. Raises NoDigitError when nothing departs.
    """
    factor = math.ceil(max(image.shape[:2]) / _SMALL)
    size = (max(1, image.shape[1] // factor), max(1, image.shape[0] // factor))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    paper = _paper(small)
    towards = _towards(small, paper)
    # Projected first, so that only one channel is worked on at full size.
    projected, empty = (cv2.transform(part, towards) for part in (image, paper))
    empty = cv2.resize(empty, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.maximum(projected - empty, 0), np.float32)


def _paper(small: NDArray[np.float32]) -> NDArray[np.float32]:
    """The paper's colour on a coarse grid: float32 [_GRID, _GRID, channels].

    A surface of second degree follows shade and vignettes. It is fitted to what differs little from it,
    starting from the picture's border, so that ink doesn't pull it.
    """
    grid = cv2.resize(small, (_GRID, _GRID), interpolation=cv2.INTER_AREA).reshape(_GRID, _GRID, -1)
    samples, terms = grid.reshape(_GRID * _GRID, -1), _terms()
    border = np.concatenate((grid[0], grid[-1], grid[:, 0], grid[:, -1]))
    surface = np.broadcast_to(np.median(border, axis=0), samples.shape)
    for _ in range(_ROUNDS):
        distance = _length(samples - surface)
        near = (distance <= max(2.5 * float(np.median(distance)), 8.0)).astype(np.float32)
        weighted = terms * near[:, None]
        surface = terms @ np.linalg.lstsq(weighted.T @ terms, weighted.T @ samples, rcond=None)[0]
    return np.asarray(surface.reshape(grid.shape), np.float32)


def _terms() -> NDArray[np.float32]:
    axis = (np.arange(_GRID, dtype=np.float32) + 0.5) / _GRID - 0.5
    y, x = np.meshgrid(axis, axis, indexing="ij")
    terms: NDArray[np.float32] = np.stack((np.ones_like(x), x, y, x * y, x * x, y * y), axis=-1)
    return terms.reshape(-1, 6)


def _towards(small: NDArray[np.float32], paper: NDArray[np.float32]) -> NDArray[np.float32]:
    """The direction from the paper's colour to the ink's, as weights: float32 [1, channels]."""
    size = (small.shape[1], small.shape[0])
    difference = small - cv2.resize(paper, size, interpolation=cv2.INTER_LINEAR).reshape(small.shape)
    difference = difference.reshape(size[0] * size[1], -1)
    strength = _length(difference)
    strongest = strength >= max(float(np.quantile(strength, 0.995)), 1.0)
    direction = difference[strongest].mean(axis=0) if strongest.any() else np.zeros(1, np.float32)
    length = float(np.linalg.norm(direction))
    if length < 1.0:
        raise NoDigitError("nothing is drawn on the image")
    return np.asarray(direction / (length * len(direction) ** 0.5), np.float32)[None]


def _length(colours: NDArray[np.float32]) -> NDArray[np.float32]:
    """The length of each row: float32 [n]. NumPy's own norm and max take ten times as long on short rows."""
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", colours, colours)), np.float32)
