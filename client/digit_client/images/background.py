"""What a picture would be if nothing were drawn on it, and how far it departs from that."""

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client._exceptions import NoDigitError
from digit_client.images import scaling

_GRID = 48
_ROUNDS = 4
# In levels: as far from paper's commonest colour is most of it, and from the colour that it has in a place
# all of it, by noise and, at the most, by light.
_ALIKE, _NOISE, _LIGHT = 12, 8, 40
# One sample of so many tells about all of them.
_SOME = 5
# Small enough to be quick, and large enough that a thin pen's colour still shows.
_SMALL = 192
# Of that size: wider than two strokes, and narrower than a sheet of paper; wider than most strokes.
_AROUND, _STROKE = 41, 21
# In levels, from a place to the next: more is no shade, but where something ends.
_STEP = 24
# What is broader than a stroke and departs more than that, in levels and as a share of the ink's strongest,
# is no shade of the paper; a bold digit departs as much as the strongest, a shadow less.
_FAINT, _SHADE, _DARKEST = 10.0, 0.12, 0.8
# What is broader and departs more than that the other way, as a share of the ink's strongest, is a gleam.
_GLEAM = 0.25


def departure(image: NDArray[np.float32], paper: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """How far each pixel departs from the paper, in levels: float32 [h, w].

    Above 0 is towards the colour of what departs most, which is ink but where a lamp's light is stronger, and
    below 0 the other way; what departs towards another colour counts as far as it goes along.

    Takes float32 [h, w] or [h, w, 3] in 0..255, a picture of paper that fades smoothly from edge to edge, and
    where on it there is paper, bool [h, w], if that is known. Raises NoDigitError when nothing departs.
    """
    small = _reduced(image)
    empty = _paper(small, paper)
    return _departure(image, empty, _towards(small, empty))


def local_contrast(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far each pixel departs towards the ink's colour, and not the other way: float32 [h, w].

    For a picture that shows more than the paper: a table around it, or the edge of a shadow.

    Only what is narrower than a fifth of the picture departs: what is wider is ground itself.
    """
    small = _reduced(image)
    around = cv2.medianBlur(np.rint(small).astype(np.uint8), _AROUND).reshape(small.shape).astype(np.float32)
    change = cv2.morphologyEx(around, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)).reshape(small.shape)
    # Around the corner of a sheet lies mostly what is no sheet: that departs, but is no ink.
    even = cv2.erode((change.max(axis=2) < _STEP).astype(np.uint8), np.ones((_AROUND // 2,) * 2, np.uint8))
    projected = cv2.transform(image, _towards(small, np.where(even[:, :, None], around, small)))
    departure = projected - _broad(cv2.blur(projected, (3, 3)), _AROUND)
    # Noise lifts everything above the lowest around it.
    return np.asarray(np.maximum(departure - float(np.quantile(departure[::4, ::4], 0.5)), 0), np.float32)


def contrast_within(image: NDArray[np.float32], sheet: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The same on a sheet of paper that lies there, bool [h, w]: nothing beside it departs."""
    empty = _paper(_reduced(image), sheet)
    beside = cv2.resize(empty, sheet.shape[::-1], interpolation=cv2.INTER_LINEAR).reshape(image.shape)
    bare = np.where(sheet if image.ndim == 2 else sheet[:, :, None], image, beside)
    return np.maximum(_departure(bare, empty, _towards(_reduced(bare), empty)), 0)


def has_shadow(contrast: NDArray[np.float32]) -> bool:
    """Whether something broad departs from the paper as well, less than ink does or as far as to a corner of
    the picture, where no digit is: the shadow of a hand, for one.
    """
    small = _reduced(contrast)[:, :, 0]
    broad = _broad(small, _STROKE)
    broadest, corner = float(broad.max()), float(broad[[0, 0, -1, -1], [0, -1, 0, -1]].max())
    if broadest < _FAINT or broadest < _SHADE * (strongest := _strongest(small)):
        return False
    # `broad` is the least around, which may be beside a bold stroke.
    depth = float(np.median(small[broad > broadest / 2]))
    return corner > broadest / 2 or depth < min(_DARKEST * strongest, 2 * broadest)


def has_gleam(departure: NDArray[np.float32]) -> bool:
    """Whether something broad departs from the paper as well, the other way than ink does: the light of a
    lamp on a board, where ink is fainter than elsewhere.
    """
    light = -_reduced(departure)[:, :, 0]
    brightest = float(light.max())
    if brightest <= _FAINT or brightest <= (least := _GLEAM * _strongest(-light)):
        return False
    return bool(_broad(light, _STROKE).max() > max(_FAINT, least))


def _strongest(departure: NDArray[np.float32]) -> float:
    return float(np.quantile(departure, 0.999))


def _broad(levels: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """What is left of float32 [h, w] without what is higher and narrower than `width` is of _SMALL."""
    side = round(width * max(levels.shape) / _SMALL) | 1
    # Continued beyond the picture, a strip of table along its border is broad.
    padded = cv2.copyMakeBorder(levels, side, side, side, side, cv2.BORDER_REPLICATE)
    opened = cv2.morphologyEx(padded, cv2.MORPH_OPEN, np.ones((side, side), np.uint8))
    # A square leaves out what is round, which has to be followed to its edge.
    step = np.ones((side // 4 | 1, side // 4 | 1), np.uint8)
    for _ in range(2):
        opened = np.minimum(cv2.dilate(opened, step), padded)
    return np.asarray(opened[side:-side, side:-side], np.float32)


def _reduced(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Small enough to be quick: float32 [h, w, channels]."""
    factor = scaling.factor(image.shape[:2], _SMALL)
    size = (max(1, image.shape[1] // factor), max(1, image.shape[0] // factor))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.asarray(small.reshape(size[1], size[0], -1), np.float32)


def _departure(
    image: NDArray[np.float32], paper: NDArray[np.float32], towards: NDArray[np.float32]
) -> NDArray[np.float32]:
    # Projected first, so that only one channel is worked on at full size.
    projected, empty = (cv2.transform(part, towards) for part in (image, paper))
    empty = cv2.resize(empty, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(projected - empty, np.float32)


def _paper(small: NDArray[np.float32], where: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """The paper's colour on a coarse grid: float32 [_GRID, _GRID, channels].

    A surface of second degree follows shade and vignettes. It is fitted to what differs little from it,
    starting from the commonest colour.
    """
    grid = cv2.resize(small, (_GRID, _GRID), interpolation=cv2.INTER_AREA).reshape(_GRID, _GRID, -1)
    samples, terms = grid.reshape(_GRID * _GRID, -1), _terms()
    surface = np.broadcast_to(_commonest(samples, where), samples.shape)
    for _ in range(_ROUNDS):
        distance = _length(samples - surface)
        # A quarter of the picture is paper, even around a digit that fills it.
        spread = _lower_quarter(distance)
        if not spread:
            # Nothing to follow: it was drawn on a screen.
            break
        near = (distance <= min(max(5 * spread, _NOISE), _LIGHT)).astype(np.float32)
        weighted = terms * near[:, None]
        # NumPy's own least squares take four times as long on so few.
        _, weights = cv2.solve(weighted.T @ terms, weighted.T @ samples, flags=cv2.DECOMP_SVD)
        surface = terms @ weights
    return np.asarray(surface.reshape(grid.shape), np.float32)


def _lower_quarter(values: NDArray[np.float32]) -> float:
    """About the value that a quarter of them is below: np.quantile takes five times as long."""
    some = values[::_SOME]
    return float(np.partition(some, len(some) // 4)[len(some) // 4])


def _commonest(samples: NDArray[np.float32], where: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """The colour of most of the grid's samples, [n, channels], or of most of those that lie there."""
    if where is not None:
        share = cv2.resize(where.astype(np.float32), (_GRID, _GRID), interpolation=cv2.INTER_AREA).ravel()
        # Of a narrow picture the grid may have none of the paper's few pixels: then all are as likely.
        samples = samples[share >= 0.99 * share.max()]
    levels = samples @ np.full(samples.shape[1], 1 / samples.shape[1], np.float32)
    counts = np.bincount(levels.astype(np.intp), minlength=256)
    around = np.convolve(counts, np.ones(2 * _ALIKE + 1, np.intp), "same")
    commonest = np.flatnonzero(around == around.max())
    level = commonest[len(commonest) // 2]
    return np.asarray(np.median(samples[np.abs(levels - level) <= _ALIKE + 1], axis=0), np.float32)


@cache
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
    """The length of each row: float32 [n]. NumPy takes ten times as long on short rows."""
    channels = colours.shape[1]
    squares = np.square(colours).reshape(-1, 1, channels)
    sums = cv2.transform(squares, np.ones((1, channels), np.float32))
    return np.asarray(cv2.sqrt(sums), np.float32).ravel()


Picture = NDArray[np.uint8]


def flat_foreground(picture: Picture) -> NDArray[np.uint8] | None:
    """How far each pixel departs from the ground, in levels: uint8 [h, w], cropped to what departs.

    Takes uint8 [h, w] or [h, w, 3]. None where it is no drawing: where the border has several colours, or
    most of the picture another one. Of a drawing in a frame it is what departs from the ground within.
    """
    if not has_plain_border(picture):
        return None
    levels = _levels(picture, picture[0, 0])
    left, top, width, height = cv2.boundingRect(levels)
    box = slice(top, top + height), slice(left, left + width)
    drawn = levels[box]
    if 0 < drawn.size < levels.size:
        framed = flat_foreground(picture[box])
        # A bar has nothing within, and a rectangular 0 nothing but a rectangle.
        if framed is not None and cv2.countNonZero(framed) < framed.size:
            return framed
    return None if 2 * cv2.countNonZero(drawn) > levels.size else drawn


def has_plain_border(picture: Picture) -> bool:
    """Whether the picture is of exactly one colour along its four sides."""
    sides = (picture[0], picture[-1], picture[:, 0], picture[:, -1])
    return not any((side != picture[0, 0]).any() for side in sides)


def _levels(picture: Picture, ground: NDArray[np.uint8]) -> Picture:
    if picture.ndim == 2:
        # Of a column of four pixels and a number OpenCV would make two pictures.
        return np.asarray(cv2.absdiff(picture, np.full_like(picture, ground)))
    red, green, blue = cv2.split(cv2.absdiff(picture, tuple(ground.tolist())))
    return np.asarray(cv2.max(cv2.max(red, green), blue))
