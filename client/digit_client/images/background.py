"""Background estimation and subtraction: the contrast of each pixel with the paper, in levels of 0..255.

Photographs and scans get a polynomial background, drawings on screens a single flat colour.
"""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client._exceptions import NoInkError
from digit_client.images import scaling


@dataclass(frozen=True, slots=True)
class BackgroundConfig:
    """Parameters of background estimation. Lengths are pixels of the picture downscaled to `working_side`."""

    working_side: int = 192
    """Longer side, in pixels: small enough to be fast, large enough for a thin pen's colour to remain."""
    grid_side: int = 48
    """Rows and columns of the grid to which the background surface is fitted."""
    fit_rounds: int = 4
    """Rounds of iteratively reweighted least squares."""
    sample_step: int = 5
    """Stride of the grid samples from which the lower quartile of the residuals is taken."""

    mode_width: int = 12
    """Levels from the mode, the most frequent lightness, within which most of the paper lies."""
    min_inlier_distance: float = 8.0
    """Levels: the noise of paper around its local colour. Smaller residuals always count as paper."""
    max_inlier_distance: float = 40.0
    """Levels: larger residuals never count as paper; uneven illumination causes smaller ones."""

    window_width: int = 41
    """Width of the local background's window: wider than two strokes, narrower than a sheet of paper."""
    broad_width: int = 21
    """Width from which a structure is broad: wider than most strokes."""
    max_gradient: float = 24.0
    """Levels between neighbours: a steeper change is an object's edge, not shade."""

    min_broad_contrast: float = 10.0
    """Levels: least contrast of a broad structure that can be a shadow or glare."""
    min_shadow: float = 0.12
    """Least contrast of a shadow, as a share of the ink's peak contrast."""
    max_shadow: float = 0.8
    """Largest contrast of a shadow, as a share of the ink's peak contrast: a bold digit has more."""
    min_glare: float = 0.25
    """Least contrast of glare, opposite to the ink's, as a share of the ink's peak contrast."""


_CONFIG = BackgroundConfig()


def subtract_background(
    image: NDArray[np.float32], paper: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Return the signed contrast of each pixel with the paper, in levels: float32 [h, w].

    Colours are projected on the direction from the paper's colour to the colour that differs most: ink, or
    glare if it is stronger. Contrast is positive towards that colour and negative away from it.

    Takes a picture with smooth shades, float32 [h, w] or [h, w, 3] in 0..255, and optionally a mask of pixels
    that are known to be paper, bool [h, w]. Raise NoInkError if nothing differs from the paper.
    """
    small = _downscale(image)
    background = _fit_background(small, paper)
    return _subtract(image, background, _ink_direction(small, background))


def local_contrast(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the contrast of each pixel with its neighbourhood, at least 0, in levels: float32 [h, w].

    A white top hat along the ink's colour removes all structures wider than a fifth of the picture, such as a
    table around a sheet, or a shadow.
    """
    small = _downscale(image)
    median = cv2.medianBlur(np.rint(small).astype(np.uint8), _CONFIG.window_width)
    median = median.reshape(small.shape).astype(np.float32)
    gradient = cv2.morphologyEx(median, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)).reshape(small.shape)
    # Exclude object edges: at a sheet's corner the median is the table's colour, which would pass for ink.
    is_smooth = (gradient.max(axis=2) < _CONFIG.max_gradient).astype(np.uint8)
    is_smooth = cv2.erode(is_smooth, np.ones((_CONFIG.window_width // 2,) * 2, np.uint8))
    background = np.where(is_smooth[:, :, None], median, small)
    projected = cv2.transform(image, _ink_direction(small, background))
    top_hat = projected - _opening(cv2.blur(projected, (3, 3)), _CONFIG.window_width)
    # The opening follows the minima of noise: subtract the median of the remainder.
    return np.asarray(np.maximum(top_hat - float(np.quantile(top_hat[::4, ::4], 0.5)), 0), np.float32)


def contrast_in_mask(image: NDArray[np.float32], sheet: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the contrast with a sheet's paper, in levels, and 0 outside of the sheet: float32 [h, w].

    Takes float32 [h, w] or [h, w, 3] and the sheet's mask, bool [h, w]. Raise NoInkError if nothing
    differs from the paper.
    """
    background = _fit_background(_downscale(image), sheet)
    full_size = cv2.resize(background, sheet.shape[::-1], interpolation=cv2.INTER_LINEAR).reshape(image.shape)
    masked = np.where(sheet if image.ndim == 2 else sheet[:, :, None], image, full_size)
    return np.maximum(_subtract(masked, background, _ink_direction(_downscale(masked), background)), 0)


def has_shadow(contrast: NDArray[np.float32]) -> bool:
    """True if a shadow lies on the paper.

    A shadow is a broad structure of less contrast than ink, or one that reaches a corner of the picture.
    """
    small = _downscale(contrast)[:, :, 0]
    broad = _opening(small, _CONFIG.broad_width)
    broadest, corner = float(broad.max()), float(broad[[0, 0, -1, -1], [0, -1, 0, -1]].max())
    if broadest < _CONFIG.min_broad_contrast:
        return False
    peak = _peak_contrast(small)
    if broadest < _CONFIG.min_shadow * peak:
        return False
    # Median of the contrast, not of the opening: a local minimum may lie beside a bold stroke.
    depth = float(np.median(small[broad > broadest / 2]))
    return corner > broadest / 2 or depth < min(_CONFIG.max_shadow * peak, 2 * broadest)


def has_glare(contrast: NDArray[np.float32]) -> bool:
    """True if glare lies on the picture, such as a lamp's reflection on a board; ink in it is fainter.

    Glare is a broad structure of opposite contrast to ink. Takes signed contrast, float32 [h, w].
    """
    small = _downscale(contrast)[:, :, 0]
    strongest = float(-small.min())
    if strongest <= _CONFIG.min_broad_contrast:
        return False
    least = max(_CONFIG.min_broad_contrast, _CONFIG.min_glare * _peak_contrast(small))
    return strongest > least and float(_opening(-small, _CONFIG.broad_width).max()) > least


def flat_foreground(picture: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], tuple[int, int]] | None:
    """Return a drawing's contrast with its flat background, and the left and top of the drawing.

    Takes uint8 [h, w] or [h, w, 3]. The contrast is uint8 [h, w], in levels, cropped to the drawing. Frames
    around the drawing are cropped away. Return None for other pictures: the border has several colours, or
    most pixels differ from the border.
    """
    if not has_uniform_border(picture):
        return None
    contrast = _absolute_difference(picture, picture[0, 0])
    left, top, width, height = cv2.boundingRect(contrast)
    box = slice(top, top + height), slice(left, left + width)
    cropped = contrast[box]
    if 0 < cropped.size < contrast.size:
        inner = flat_foreground(picture[box])
        # A frame has a drawing inside, a solid bar nothing, and a rectangular 0 a filled rectangle.
        if inner is not None and cv2.countNonZero(inner[0]) < inner[0].size:
            return inner[0], (left + inner[1][0], top + inner[1][1])
    return None if 2 * cv2.countNonZero(cropped) > contrast.size else (cropped, (left, top))


def has_uniform_border(picture: NDArray[np.uint8]) -> bool:
    """True if all pixels of the picture's border have exactly the same colour."""
    sides = (picture[0], picture[-1], picture[:, 0], picture[:, -1])
    return not any((side != picture[0, 0]).any() for side in sides)


def _downscale(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Downscale to at most `working_side`: float32 [h, w, channels]."""
    factor = scaling.downscale_factor(image.shape[:2], _CONFIG.working_side)
    size = (max(1, image.shape[1] // factor), max(1, image.shape[0] // factor))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.asarray(small.reshape(size[1], size[0], -1), np.float32)


def _fit_background(small: NDArray[np.float32], paper: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """Fit a quadratic surface per channel to the paper: float32 [grid_side, grid_side, channels].

    Quadratic surfaces follow shades and vignettes. The fit is iteratively reweighted least squares, with
    weight 1 for samples near the surface and 0 for others, and starts from the most frequent colour.
    """
    side = _CONFIG.grid_side
    grid = cv2.resize(small, (side, side), interpolation=cv2.INTER_AREA).reshape(side, side, -1)
    samples, basis = grid.reshape(side * side, -1), _polynomial_basis()
    surface = np.broadcast_to(_mode_color(samples, paper), samples.shape)
    for _ in range(_CONFIG.fit_rounds):
        residuals = _row_norms(samples - surface)
        # At least a quarter of the picture is paper, even around a digit that fills it.
        spread = _lower_quartile(residuals)
        if not spread:
            # The background is constant, as of a drawing on a screen.
            break
        limit = min(max(5 * spread, _CONFIG.min_inlier_distance), _CONFIG.max_inlier_distance)
        weighted = basis * (residuals <= limit).astype(np.float32)[:, None]
        # The normal equations take a quarter of the time of np.linalg.lstsq for so few samples.
        _, coefficients = cv2.solve(weighted.T @ basis, weighted.T @ samples, flags=cv2.DECOMP_SVD)
        surface = basis @ coefficients
    return np.asarray(surface.reshape(grid.shape), np.float32)


def _mode_color(samples: NDArray[np.float32], paper: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """Return the most frequent colour of the samples, or of those in the mask: float32 [channels]."""
    if paper is not None:
        size = (_CONFIG.grid_side, _CONFIG.grid_side)
        share = cv2.resize(paper.astype(np.float32), size, interpolation=cv2.INTER_AREA).ravel()
        # Relative to the maximum: on a narrow picture no sample may be entirely paper.
        samples = samples[share >= 0.99 * share.max()]
    lightness = samples @ np.full(samples.shape[1], 1 / samples.shape[1], np.float32)
    histogram = np.bincount(lightness.astype(np.intp), minlength=256)
    smoothed = np.convolve(histogram, np.ones(2 * _CONFIG.mode_width + 1, np.intp), "same")
    modes = np.flatnonzero(smoothed == smoothed.max())
    mode = modes[len(modes) // 2]
    near = np.abs(lightness - mode) <= _CONFIG.mode_width + 1
    return np.asarray(np.median(samples[near], axis=0), np.float32)


@cache
def _polynomial_basis() -> NDArray[np.float32]:
    """Return 1, x, y, xy, x² and y² at each grid point: float32 [grid_side², 6]."""
    axis = (np.arange(_CONFIG.grid_side, dtype=np.float32) + 0.5) / _CONFIG.grid_side - 0.5
    y, x = np.meshgrid(axis, axis, indexing="ij")
    basis: NDArray[np.float32] = np.stack((np.ones_like(x), x, y, x * y, x * x, y * y), axis=-1)
    return basis.reshape(-1, 6)


def _ink_direction(small: NDArray[np.float32], background: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the direction in colour space from paper to ink, as projection weights: float32 [1, channels].

    The 0.5 % of pixels that differ most count as ink. Raise NoInkError if they differ by less than a level.
    """
    size = (small.shape[1], small.shape[0])
    difference = small - cv2.resize(background, size, interpolation=cv2.INTER_LINEAR).reshape(small.shape)
    difference = difference.reshape(size[0] * size[1], -1)
    distance = _row_norms(difference)
    is_ink = distance >= max(float(np.quantile(distance, 0.995)), 1.0)
    direction = difference[is_ink].mean(axis=0) if is_ink.any() else np.zeros(1, np.float32)
    length = float(np.linalg.norm(direction))
    if length < 1.0:
        raise NoInkError("nothing is drawn on the image")
    return np.asarray(direction / (length * len(direction) ** 0.5), np.float32)[None]


def _subtract(
    image: NDArray[np.float32], background: NDArray[np.float32], direction: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the difference of image and background along the direction: float32 [h, w]."""
    # Project before upscaling, so that a single channel is upscaled.
    projected, flat = (cv2.transform(part, direction) for part in (image, background))
    flat = cv2.resize(flat, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(projected - flat, np.float32)


def _opening(levels: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Grey opening of float32 [h, w]: remove peaks narrower than `width` pixels of `working_side`."""
    side = round(width * max(levels.shape) / _CONFIG.working_side) | 1
    # Replicate the border, so that a strip of table along it counts as broad.
    padded = cv2.copyMakeBorder(levels, side, side, side, side, cv2.BORDER_REPLICATE)
    opened = cv2.morphologyEx(padded, cv2.MORPH_OPEN, np.ones((side, side), np.uint8))
    # Two steps of geodesic dilation restore round structures, which the square window cuts at their edges.
    step = np.ones((side // 4 | 1, side // 4 | 1), np.uint8)
    for _ in range(2):
        opened = np.minimum(cv2.dilate(opened, step), padded)
    return np.asarray(opened[side:-side, side:-side], np.float32)


def _peak_contrast(contrast: NDArray[np.float32]) -> float:
    """Return the 99.9th percentile."""
    return float(np.quantile(contrast, 0.999))


def _lower_quartile(values: NDArray[np.float32]) -> float:
    """Estimate the 25th percentile from a sample; np.quantile takes five times as long."""
    sample = values[:: _CONFIG.sample_step]
    return float(np.partition(sample, len(sample) // 4)[len(sample) // 4])


def _row_norms(colors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the Euclidean norm of each row: float32 [n]. NumPy takes ten times as long on short rows."""
    channels = colors.shape[1]
    squares = np.square(colors).reshape(-1, 1, channels)
    sums = cv2.transform(squares, np.ones((1, channels), np.float32))
    return np.asarray(cv2.sqrt(sums), np.float32).ravel()


def _absolute_difference(picture: NDArray[np.uint8], color: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the absolute difference from one colour, the maximum over the channels: uint8 [h, w]."""
    if picture.ndim == 2:
        # full_like: cv2.absdiff mistakes a picture of four pixels for a scalar, and rejects two scalars.
        return np.asarray(cv2.absdiff(picture, np.full_like(picture, color)))
    red, green, blue = cv2.split(cv2.absdiff(picture, tuple(color.tolist())))
    return np.asarray(cv2.max(cv2.max(red, green), blue))
