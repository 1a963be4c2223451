"""Data augmentation: random distortions of digits that imitate other hands, pens and cameras.

Images are uint8 [n, 28, 28], light ink on dark. Functions change no argument except `rng`.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]

SIDE = 28
BOX = 20
CENTER = 14
"""Serving scales a digit's longer side to BOX pixels and puts its centre of mass at CENTER."""


@dataclass(frozen=True)
class AugmentationConfig:
    """Frequency and strength of each distortion.

    A `_fraction` is the share of digits that get the distortion, 0..1. A `_std` is the standard deviation of
    a normal distribution with mean 0.
    """

    gap_fraction: float
    """Digits with gaps in their strokes, as a dry pen leaves them."""
    crop_fraction: float
    """Digits cut off on one side, as at the edge of a picture."""
    pen_fraction: float
    """Digits drawn with a thinner or thicker pen."""
    blur_fraction: float
    """Digits enlarged from a low resolution."""
    grain_fraction: float
    """Digits with rough ink, as pencils and paper make it."""
    rotation_std: float
    """Rotation in radians."""
    shear_std: float
    """Slant in pixels to the side per pixel upwards."""
    aspect_std: float
    """Logarithm of the stretch along x; y shrinks by the same factor."""


STRONG = AugmentationConfig(
    gap_fraction=0.1,
    crop_fraction=0.08,
    pen_fraction=0.7,
    blur_fraction=0.2,
    grain_fraction=0.15,
    rotation_std=0.12,
    shear_std=0.2,
    aspect_std=0.1,
)
"""Distortions with the variety of the digits that serving receives."""

MILD = AugmentationConfig(
    gap_fraction=0.02,
    crop_fraction=0.02,
    pen_fraction=0.3,
    blur_fraction=0.05,
    grain_fraction=0.05,
    rotation_std=0.08,
    shear_std=0.12,
    aspect_std=0.06,
)
"""Distortions with little more variety than MNIST has."""

_DISC = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
_SQUARE = np.ones((3, 3), np.uint8)
_AXIS = np.arange(SIDE, dtype=np.float32)
_KNOTS = 5
"""Control points of the bending grid along each axis."""

_SPLINE = cv2.resize(np.eye(_KNOTS, dtype=np.float32), (_KNOTS, SIDE), interpolation=cv2.INTER_CUBIC)
"""Interpolation weights of the knots for each pixel of an axis: [28, knots]."""

_BASIS = np.vstack(
    [np.tile(_AXIS, SIDE), np.repeat(_AXIS, SIDE), np.ones(SIDE * SIDE), np.kron(_SPLINE, _SPLINE).T]
).astype(np.float32)
"""Basis of the coordinate maps: x, y, 1, and the displacement by each knot: [3 + knots * knots, 784]."""


def augment(images: Images, rng: np.random.Generator, config: AugmentationConfig = STRONG) -> Images:
    """Return a random distortion of each digit: uint8 [n, 28, 28]."""
    strokes = [_change_strokes(image, rng, config) for image in images]
    scans = [
        _reduce_resolution(cv2.remap(image, x, y, cv2.INTER_LINEAR), rng, config)
        for image, (x, y) in zip(strokes, _coordinate_maps(np.stack(strokes), rng, config), strict=True)
    ]
    return _change_tones(np.stack(scans), rng, config)


def _change_strokes(image: Images, rng: np.random.Generator, config: AugmentationConfig) -> Images:
    damage = rng.random()
    if damage < config.gap_fraction:
        image = _add_gaps(image, rng)
    elif damage < config.gap_fraction + config.crop_fraction:
        image = _crop_side(image, rng)
    return _change_stroke_width(image, rng) if rng.random() < config.pen_fraction else image


def _add_gaps(image: Images, rng: np.random.Generator) -> Images:
    """Add one to three gaps."""
    result = image.copy()
    ink = np.argwhere(image > 127)
    for row, column in rng.permutation(ink)[: rng.integers(1, 4)].tolist():
        cv2.circle(result, (column, row), 1, 0, -1)
    return result


def _crop_side(image: Images, rng: np.random.Generator) -> Images:
    """Cut one to three pixels off the ink of one side."""
    result = image.copy()
    rotated = np.rot90(result, int(rng.integers(4)))
    first_row = int(np.argmax(rotated.max(axis=1) > 127))
    rotated[: first_row + rng.integers(1, 4)] = 0
    return result


def _change_stroke_width(image: Images, rng: np.random.Generator) -> Images:
    """Make the strokes up to 0.8 pixels thinner, or up to 2 pixels thicker."""
    kernel = _DISC if rng.random() < 0.5 else _SQUARE
    change = rng.uniform(-0.8, 2.0)
    changed = cv2.erode(image, kernel) if change < 0 else cv2.dilate(image, kernel)
    # Erosion and dilation change the stroke width by two pixels. Blending gives smaller changes.
    return np.asarray(cv2.addWeighted(image, 1 - abs(change) / 2, changed, abs(change) / 2, 0), np.uint8)


def _coordinate_maps(images: Images, rng: np.random.Generator, config: AugmentationConfig) -> Floats:
    """Return each pixel's source coordinates, x and y, for an affine map and a bend: [n, 2, 28, 28].

    The maps also normalise size and position, as serving does. The box and the centre of mass that serving
    measures vary with pen and noise: by 5 % and by half a pixel.
    """
    count = len(images)
    deviations = [[config.rotation_std], [config.shear_std], [config.aspect_std], [0.05]]
    angle, slant, aspect, size = rng.normal(0, deviations, (4, count))
    zero, one = np.zeros(count), np.ones(count)
    rotation = _matrices(np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle))
    shear = _matrices(one, slant, zero, one)
    stretch = _matrices(np.exp(aspect), zero, zero, np.exp(-aspect))
    forward = (rotation @ shear @ stretch).astype(np.float32)
    centers = _centers_of_mass(images)
    scale = BOX * np.exp(size).astype(np.float32) / _longer_sides(images, centers, forward)
    inverse = np.linalg.inv(forward * scale[:, None, None])
    target = CENTER + rng.normal(0, 0.5, (count, 2, 1)).astype(np.float32)
    bends = _knot_displacements(count, rng)
    weights = np.concatenate((inverse, centers[:, :, None] - inverse @ target, bends), axis=2)
    return (weights @ _BASIS).reshape(count, 2, SIDE, SIDE)


def _centers_of_mass(images: Images) -> Floats:
    """Return each digit's centre of mass, x and y: [n, 2]."""
    sums = np.stack((images.sum(axis=1, dtype=np.float32), images.sum(axis=2, dtype=np.float32)), axis=1)
    mass = np.maximum(sums[:, :1].sum(axis=2), 1)
    centers: Floats = np.asarray(sums @ _AXIS / mass, np.float32)
    return centers


def _matrices(*entries: NDArray[np.float64]) -> Floats:
    """Return 2x2 matrices from their entries [n], row by row: [n, 2, 2]."""
    return np.stack(entries, axis=-1).reshape(-1, 2, 2).astype(np.float32)


def _longer_sides(images: Images, centers: Floats, forward: Floats) -> Floats:
    """Return the longer side of each digit's bounding box after the affine map, in pixels: [n]."""
    ink = images > 64
    has_ink = np.any(ink, axis=2)
    # The first and last inked pixel of each row suffice. A row without ink gets the centre of mass instead,
    # which is inside the box.
    columns = np.stack((ink.argmax(axis=2), SIDE - 1 - ink[:, :, ::-1].argmax(axis=2)), axis=1)
    x = np.where(has_ink[:, None], columns, centers[:, 0, None, None])
    y = np.where(has_ink, _AXIS, centers[:, 1, None])
    ends = np.stack((x.reshape(len(images), -1), np.tile(y, 2)), axis=1).astype(np.float32)
    sides = np.ptp(forward @ ends, axis=2).max(axis=1) + 1
    return np.where(np.any(has_ink, axis=1), sides, BOX).astype(np.float32)


def _knot_displacements(count: int, rng: np.random.Generator) -> Floats:
    """Return the displacement of each knot of the bending grid, by up to a pixel: [n, 2, knots * knots]."""
    strength = rng.uniform(0.0, 1.0, (count, 1, 1))
    return (rng.standard_normal((count, 2, _KNOTS * _KNOTS)) * strength).astype(np.float32)


def _reduce_resolution(image: Images, rng: np.random.Generator, config: AugmentationConfig) -> Images:
    """Enlarge some digits from 8 to 19 pixels, 5 to 13 for the digit's longer side."""
    if rng.random() > config.blur_fraction:
        return image
    side = int(rng.integers(8, 20))
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    method = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC)[int(rng.integers(3))]
    return np.asarray(cv2.resize(small, (SIDE, SIDE), interpolation=method), np.uint8)


def _change_tones(images: Images, rng: np.random.Generator, config: AugmentationConfig) -> Images:
    """Add grain to some digits and change the contrast of all; the brightest pixel of a digit becomes 255.

    The gain is 1, for a soft scan, to 4, for a binarised scan, about a brightness that stays.
    """
    shape = (len(images), 1, 1)
    ink = images.astype(np.float32)
    grainy = np.flatnonzero(rng.random(len(images)) < config.grain_fraction)
    grain = rng.standard_normal((len(grainy), SIDE, SIDE), np.float32)
    strength = rng.uniform(0.0, 0.4, (len(grainy), 1, 1)).astype(np.float32)
    ink[grainy] *= np.clip(1 - strength * np.abs(grain), 0, 1)
    ink /= np.maximum(ink.max(axis=(1, 2), keepdims=True), 1)
    pivot = rng.uniform(0.3, 0.6, shape).astype(np.float32)
    gain = np.exp(rng.uniform(0.0, 1.4, shape)).astype(np.float32)
    ink = (ink - pivot) * gain + pivot
    return np.rint(np.clip(ink, 0, 1) * 255).astype(np.uint8)
