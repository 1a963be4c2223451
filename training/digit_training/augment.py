"""Digits as others would have written and scanned them: the same digit from another hand, pen and camera.

Pure: images uint8 [n, 28, 28], light ink on dark, in and out; what happens to them is drawn from `rng`.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]

SIDE = 28
BOX = 20
MIDDLE = 14
"""Serving scales a digit until its longer side is BOX pixels and puts its centre of mass at MIDDLE."""


@dataclass(frozen=True)
class Hand:
    """How far digits depart from what they were.

    The share of them that is broken, cut off, of another pen, blurred and grainy; and standard deviations:
    `rotation` in radians, `slant` in pixels to the side for each pixel up, `aspect` of the logarithm.
    """

    broken: float
    cut_off: float
    other_pen: float
    blurred: float
    grainy: float
    rotation: float
    slant: float
    aspect: float


ANYBODY = Hand(
    broken=0.1,
    cut_off=0.08,
    other_pen=0.7,
    blurred=0.2,
    grainy=0.15,
    rotation=0.12,
    slant=0.2,
    aspect=0.1,
)
"""Whom serving meets."""

CAREFUL = Hand(
    broken=0.02,
    cut_off=0.02,
    other_pen=0.3,
    blurred=0.05,
    grainy=0.05,
    rotation=0.08,
    slant=0.12,
    aspect=0.06,
)
"""Whose digits are much like MNIST's own."""

SIZE = 0.05  # of the logarithm
SHIFT = 0.5  # pixels
BEND = 1.0  # pixels, at most

_DISC = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
_SQUARE = np.ones((3, 3), np.uint8)
_AXIS = np.arange(SIDE, dtype=np.float32)
_KNOTS = 5
# Each pixel's weights of the knots between which a digit is bent: [28, knots].
_SPLINE = cv2.resize(np.eye(_KNOTS, dtype=np.float32), (_KNOTS, SIDE), interpolation=cv2.INTER_CUBIC)
# What every map of places is a weighted sum of: x, y, 1, and what each knot pulls along: [28, 784].
_TERMS = np.vstack(
    [np.tile(_AXIS, SIDE), np.repeat(_AXIS, SIDE), np.ones(SIDE * SIDE), np.kron(_SPLINE, _SPLINE).T]
).astype(np.float32)


def augment(images: Images, rng: np.random.Generator, hand: Hand = ANYBODY) -> Images:
    """Each digit written anew: uint8 [n, 28, 28]."""
    written = [_rewritten(image, rng, hand) for image in images]
    seen = [
        _seen(cv2.remap(image, x, y, cv2.INTER_LINEAR), rng, hand)
        for image, (x, y) in zip(written, _places(np.stack(written), rng, hand), strict=True)
    ]
    return _exposed(np.stack(seen), rng, hand)


def _rewritten(image: Images, rng: np.random.Generator, hand: Hand) -> Images:
    accident = rng.random()
    if accident < hand.broken:
        image = _broken(image, rng)
    elif accident < hand.broken + hand.cut_off:
        image = _cut_off(image, rng)
    return _drawn(image, rng) if rng.random() < hand.other_pen else image


def _broken(image: Images, rng: np.random.Generator) -> Images:
    """One to three spots that the pen left out."""
    broken = image.copy()
    ink = np.argwhere(image > 127)
    for row, column in rng.permutation(ink)[: rng.integers(1, 4)].tolist():
        cv2.circle(broken, (column, row), 1, 0, -1)
    return broken


def _cut_off(image: Images, rng: np.random.Generator) -> Images:
    """One side of the digit, up to three pixels of it, is beyond the edge of the picture."""
    cut = image.copy()
    turned = np.rot90(cut, int(rng.integers(4)))
    first = int(np.argmax(turned.max(axis=1) > 127))
    turned[: first + rng.integers(1, 4)] = 0
    return cut


def _drawn(image: Images, rng: np.random.Generator) -> Images:
    """With a pen up to one pixel thinner or two thicker."""
    kernel = _DISC if rng.random() < 0.5 else _SQUARE
    wider = rng.uniform(-0.8, 2)
    other = cv2.erode(image, kernel) if wider < 0 else cv2.dilate(image, kernel)
    # Either moves both edges of a stroke by a pixel; half of it is half of the grey in between.
    return np.asarray(cv2.addWeighted(image, 1 - abs(wider) / 2, other, abs(wider) / 2, 0), np.uint8)


def _places(images: Images, rng: np.random.Generator, hand: Hand) -> Floats:
    """Where each pixel comes from, x and y, when digits are turned, framed anew and bent: [n, 2, 28, 28]."""
    count = len(images)
    deviations = [[hand.rotation], [hand.slant], [hand.aspect], [SIZE]]
    angle, slant, aspect, size = rng.normal(0, deviations, (4, count))
    zero, one = np.zeros(count), np.ones(count)
    turn = _matrices(np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle))
    lean = _matrices(one, slant, zero, one)
    stretch = _matrices(np.exp(aspect), zero, zero, np.exp(-aspect))
    forward = (turn @ lean @ stretch).astype(np.float32)
    centres = _centres(images)
    scale = BOX * np.exp(size).astype(np.float32) / _extents(images, centres, forward)
    back = np.linalg.inv(forward * scale[:, None, None])
    middle = MIDDLE + rng.normal(0, SHIFT, (count, 2, 1)).astype(np.float32)
    weights = np.concatenate((back, centres[:, :, None] - back @ middle, _bends(count, rng)), axis=2)
    return (weights @ _TERMS).reshape(count, 2, SIDE, SIDE)


def _centres(images: Images) -> Floats:
    """Each digit's centre of mass, x and y: [n, 2]."""
    sums = np.stack((images.sum(axis=1, dtype=np.float32), images.sum(axis=2, dtype=np.float32)), axis=1)
    mass = np.maximum(sums[:, :1].sum(axis=2), 1)
    centres: Floats = sums @ _AXIS / mass
    return centres


def _matrices(*entries: NDArray[np.float64]) -> Floats:
    """Row by row: [n, 2, 2]."""
    return np.stack(entries, axis=-1).reshape(-1, 2, 2).astype(np.float32)


def _extents(images: Images, centres: Floats, forward: Floats) -> Floats:
    """The longer side of each digit's box after it is turned, in pixels: [n]."""
    ink = images > 64
    written = np.any(ink, axis=2)
    # Of each row its first and last pixel: no other can be a corner of the box. Nor can the centre, so that
    # it stands for those of a row without ink.
    columns = np.stack((ink.argmax(axis=2), SIDE - 1 - ink[:, :, ::-1].argmax(axis=2)), axis=1)
    x = np.where(written[:, None], columns, centres[:, 0, None, None])
    y = np.where(written, _AXIS, centres[:, 1, None])
    ends = np.stack((x.reshape(len(images), -1), np.tile(y, 2)), axis=1).astype(np.float32)
    sides = np.ptp(forward @ ends, axis=2).max(axis=1) + 1
    return np.where(np.any(written, axis=1), sides, BOX).astype(np.float32)


def _bends(count: int, rng: np.random.Generator) -> Floats:
    """How far each knot is drawn aside, along x and y, in pixels: [n, 2, knots * knots]."""
    strength = rng.uniform(0, BEND, (count, 1, 1))
    return (rng.standard_normal((count, 2, _KNOTS * _KNOTS)) * strength).astype(np.float32)


def _seen(image: Images, rng: np.random.Generator, hand: Hand) -> Images:
    """Some as from a scan of five to thirteen pixels, enlarged."""
    if rng.random() > hand.blurred:
        return image
    side = int(rng.integers(8, 20))
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    how = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC)[int(rng.integers(3))]
    return np.asarray(cv2.resize(small, (SIDE, SIDE), interpolation=how), np.uint8)


def _exposed(images: Images, rng: np.random.Generator, hand: Hand) -> Images:
    """Ink that is rough, and softer or harder against its ground; its brightest is always 255."""
    count = (len(images), 1, 1)
    ink = images.astype(np.float32)
    rough = np.flatnonzero(rng.random(len(images)) < hand.grainy)
    grain = rng.standard_normal((len(rough), SIDE, SIDE), np.float32)
    ink[rough] *= np.clip(
        1 - rng.uniform(0, 0.4, (len(rough), 1, 1)).astype(np.float32) * np.abs(grain), 0, 1
    )
    ink /= np.maximum(ink.max(axis=(1, 2), keepdims=True), 1)
    threshold, hardness = rng.uniform(0.3, 0.6, count), np.exp(rng.uniform(0, 1.4, count))
    ink = (ink - threshold.astype(np.float32)) * hardness.astype(np.float32) + threshold.astype(np.float32)
    return np.rint(np.clip(ink, 0, 1) * 255).astype(np.uint8)
