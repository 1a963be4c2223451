"""Over-segmentation: candidates for the digits on a picture, of which the model's predictions select some.

Ink is divided into atoms: connected components, cut where they may be touching digits. A candidate is a
union of neighbouring atoms, framed as in MNIST. C. J. C. Burges et al., "Shortest path segmentation: a
method for training a neural network to recognize character strings", IJCNN 1992.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client._exceptions import NoInkError
from digit_client._inputs import to_uint8_image
from digit_client._types import Box
from digit_client.images import scaling, seams
from digit_client.images.boxes import enclose, gaps, slices
from digit_client.images.ink_masks import InkMask, ink_masks
from digit_client.images.normalisation import (
    SIDE,
    drop_redundant_channels,
    fit_to_mnist_canvas,
    locate_and_normalise,
)
from digit_client.images.segmentation import flatten_alpha
from digit_client.images.stroke_metrics import INK_THRESHOLD, bounding_box

READING_SIDE = 640
"""Longer side, in pixels, of the pictures on which several digits are searched for."""


@dataclass(frozen=True, slots=True)
class CandidateConfig:
    """Limits of the search. *Length* is the longer side of a component's box."""

    min_side: int = 160
    """Longer side, in pixels, below which a picture is upscaled by an integer."""
    glyph_side: int = 64
    """Longer side, in pixels, to which large candidates are downscaled before they are framed."""
    min_length: float = 0.02
    """Least length of a component, as a share of the picture's longer side."""
    min_pixels: int = 4
    """Least length of a component, in pixels."""
    max_components: int = 80
    """Largest number of components of a mask: those with the most ink; a picture with more is noise."""
    min_strip_ratio: float = 3.0
    """Least ratio of length to width of a strip along an edge of the picture."""
    min_rule_ratio: float = 4.0
    """Least ratio of width to height of a line under a digit."""
    min_cut_width: float = 0.8
    """Least width of a component that may be several digits, as a share of its height."""
    min_lone_cut_width: float = 1.1
    """The same where no other component is half as high: letters may be as wide as two digits."""
    max_digit_width: float = 1.5
    """Largest width of a digit, as a multiple of its height."""
    max_run: int = 4
    """Largest number of pieces of a component that form a digit."""
    max_gap: float = 0.2
    """Largest gap between two components of a digit, as a share of the longer one's length."""
    max_candidates: int = 256
    """Largest number of candidates of a picture."""


_CONFIG = CandidateConfig()


@dataclass(frozen=True, slots=True)
class Candidate:
    """Union of atoms that may be a digit."""

    atoms: int
    """Bit set of the atoms."""
    box: Box
    glyph: int
    """Index among the glyphs of the picture."""
    is_piece: bool = False
    """True for a part of a component, cut from the rest."""
    is_lone: bool = False
    """True for the digit that `normalise` finds, alone on the picture."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Candidates of one ink mask, its connected components, and its atoms.

    `owners` holds the index of each atom's component, `shares` its share of the mask's ink.
    """

    candidates: tuple[Candidate, ...]
    components: tuple[Box, ...]
    owners: tuple[int, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Candidates of a picture: glyphs, uint8 [k, 28, 28], for the model, and how they were formed."""

    glyphs: NDArray[np.uint8]
    layers: tuple[Layer, ...]
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Component:
    """Connected component: its box, and the first of its atoms, whose labels are consecutive."""

    box: Box
    first: int
    pieces: int


def segment(pixels: NDArray[np.generic], *, size: tuple[int, int] | None = None) -> Candidates:
    """Return candidates for the digits on a picture, in MNIST's form.

    Takes the arrays that `normalise` takes. `size` is the height and width of the picture as sent, if it was
    decoded downscaled: boxes refer to it. A picture without ink has one black glyph and no layers. Raise
    ImageShapeError or PixelValueError for other arrays.
    """
    image = drop_redundant_channels(to_uint8_image(pixels))
    height, width = image.shape[:2]
    size = size or (height, width)
    picture = _upscale(flatten_alpha(scaling.downscale(image, READING_SIDE)))
    glyphs: list[NDArray[np.uint8]] = []
    lone_box = None
    with suppress(NoInkError):
        digit, box = locate_and_normalise(image)
        lone_box = _scale(box, picture.shape[1] / width, picture.shape[0] / height)
        glyphs.append(digit)
    layers = tuple(_layer(mask, lone_box, glyphs, size) for mask in ink_masks(picture))
    if not glyphs:
        return Candidates(np.zeros((1, SIDE, SIDE), np.uint8), (), size)
    if lone_box and not layers:
        box = _scale(lone_box, size[1] / picture.shape[1], size[0] / picture.shape[0])
        layers = (Layer((Candidate(1, box, 0, is_lone=True),), (box,), (0,), (1.0,)),)
    return Candidates(np.stack(glyphs), layers, size)


def _upscale(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Upscale a small picture by an integer: its strokes may be a pixel wide."""
    factor = _CONFIG.min_side // max(picture.shape[:2])
    if factor < 2:
        return picture
    return np.asarray(cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC))


def _layer(
    ink_mask: InkMask, lone_box: Box | None, glyphs: list[NDArray[np.uint8]], size: tuple[int, int]
) -> Layer:
    """Form the candidates of a mask, and append their glyphs to the list.

    The first glyph is the lone digit in `lone_box`, if there is one.
    """
    labels, components = _atoms(ink_mask.mask)
    counts = np.bincount(labels.ravel())[1:]
    scale = size[1] / labels.shape[1], size[0] / labels.shape[0]
    candidates = []
    if lone_box and (atoms := _atoms_in(lone_box, labels, counts)):
        candidates.append(Candidate(atoms, _scale(lone_box, *scale), 0, is_lone=True))
    room = _CONFIG.max_candidates - len(glyphs)
    for atoms, box, is_piece in islice(_unions(components, labels), room):
        candidates.append(Candidate(atoms, _scale(box, *scale), len(glyphs), is_piece))
        glyphs.append(_glyph(ink_mask.ink, labels, atoms, box))
    return Layer(
        tuple(candidates),
        tuple(_scale(component.box, *scale) for component in components),
        tuple(number for number, component in enumerate(components) for _ in range(component.pieces)),
        tuple((counts / max(1, cv2.countNonZero(ink_mask.mask))).tolist()),
    )


def _atoms_in(box: Box, labels: NDArray[np.int32], counts: NDArray[np.intp]) -> int:
    """Return the atoms that lie mostly in the box, as a bit set."""
    inside = labels[slices(box)].ravel()
    is_in = 2 * np.bincount(inside, minlength=len(counts) + 1)[1:] > counts
    return sum(1 << int(atom) for atom in np.flatnonzero(is_in))


def _atoms(mask: NDArray[np.uint8]) -> tuple[NDArray[np.int32], list[_Component]]:
    """Label the atoms, from 1 on: int32 [h, w], and return the components that they belong to."""
    box = cv2.boundingRect(mask)
    count, found, stats, _ = cv2.connectedComponentsWithStats(mask[slices(box)], connectivity=8)
    stats[:, :2] += box[:2]
    lengths = np.maximum(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT])
    least = max(_CONFIG.min_pixels, _CONFIG.min_length * max(mask.shape))
    large = [
        number
        for number in range(1, count)
        if lengths[number] >= least and not _lies_along_edge(stats[number, :4].tolist(), mask.shape)
    ]
    large = sorted(large, key=lambda number: -int(stats[number, cv2.CC_STAT_AREA]))[: _CONFIG.max_components]
    # From left to right: the choice of digits looks at neighbouring atoms one after another.
    large.sort(key=lambda number: int(stats[number, cv2.CC_STAT_LEFT]))
    labels = np.zeros(mask.shape, np.int32)
    components, first = [], 1
    heights = [int(stats[number, cv2.CC_STAT_HEIGHT]) for number in large]
    for number in large:
        left, top, width, height = stats[number, :4].tolist()
        component = slices((left, top, width, height))
        is_ink = found[slices((left - box[0], top - box[1], width, height))] == number
        pieces = np.zeros(is_ink.shape, np.int32)
        is_only = sum(2 * other >= height for other in heights) == 1
        if width >= (_CONFIG.min_lone_cut_width if is_only else _CONFIG.min_cut_width) * height:
            pieces = seams.cut(is_ink.astype(np.uint8))
        # Two seams may have no ink between them.
        values, inverse = np.unique(pieces[is_ink], return_inverse=True)
        labels[component][is_ink] = first + inverse
        components.append(_Component((left, top, width, height), first, len(values)))
        first += len(values)
    return labels, components


def _lies_along_edge(box: Sequence[int], shape: tuple[int, ...]) -> bool:
    """True for a strip along an edge of the picture, such as a table beside a sheet of paper."""
    left, top, width, height = box
    touches_side = left <= 1 or left + width >= shape[1] - 1
    touches_top_or_bottom = top <= 1 or top + height >= shape[0] - 1
    ratio = _CONFIG.min_strip_ratio
    return (touches_side and height > ratio * width) or (touches_top_or_bottom and width > ratio * height)


def _unions(components: list[_Component], labels: NDArray[np.int32]) -> Iterator[tuple[int, Box, bool]]:
    """Yield the unions of atoms that have a digit's shape: bit set, box, and True for a component's piece."""
    for component in components:
        boxes = _piece_boxes(component, labels)
        for length in range(1, component.pieces + 1):
            is_whole = length == component.pieces
            if length > _CONFIG.max_run and not is_whole:
                continue
            for start in range(component.pieces - length + 1):
                box = enclose(boxes[start : start + length])
                if box[2] <= _CONFIG.max_digit_width * max(box[3], component.box[3] / 2):
                    yield ((1 << length) - 1) << (component.first - 1 + start), box, not is_whole
    neighbours = [
        [
            other
            for other in range(number + 1, len(components))
            if _are_near(components[number].box, components[other].box)
        ]
        for number in range(len(components))
    ]
    for number, near in enumerate(neighbours):
        for other in near:
            pair = (components[number], components[other])
            yield from _union(pair)
            for third in {*neighbours[other], *near} - {other}:
                if third > other:
                    yield from _union((*pair, components[third]))


def _union(members: tuple[_Component, ...]) -> Iterator[tuple[int, Box, bool]]:
    boxes = [member.box for member in members]
    box = enclose(boxes)
    # A line as wide as the union is a rule under or over the digit.
    has_rule = any(other[2] == box[2] and other[2] > _CONFIG.min_rule_ratio * other[3] for other in boxes)
    if box[2] <= _CONFIG.max_digit_width * box[3] and not has_rule:
        bits = (((1 << member.pieces) - 1) << (member.first - 1) for member in members)
        yield sum(bits), box, False


def _are_near(box: Box, other: Box) -> bool:
    distances = gaps(box, other)
    length = max(*box[2:], *other[2:])
    return max(distances) <= _CONFIG.max_gap * length and min(distances) < 0


def _piece_boxes(component: _Component, labels: NDArray[np.int32]) -> list[Box]:
    left, top, _, _ = component.box
    if component.pieces == 1:
        return [component.box]
    crop = labels[slices(component.box)]
    boxes = []
    for label in range(component.first, component.first + component.pieces):
        x, y, w, h = cv2.boundingRect((crop == label).astype(np.uint8))
        boxes.append((left + x, top + y, w, h))
    return boxes


def _glyph(ink: NDArray[np.float32], labels: NDArray[np.int32], atoms: int, box: Box) -> NDArray[np.uint8]:
    """Frame the atoms as in MNIST: uint8 [28, 28]."""
    left, top, width, height = box
    # One more pixel on each side, for the soft edge of the ink.
    rows = slice(max(0, top - 1), top + height + 1)
    columns = slice(max(0, left - 1), left + width + 1)
    crop = labels[rows, columns]
    chosen = np.array([False, *((atoms >> bit) & 1 for bit in range(int(crop.max())))])
    mask = chosen[crop].astype(np.uint8)
    near = cv2.dilate(mask, np.ones((3, 3), np.uint8)) & (mask | (crop == 0))
    glyph = ink[rows, columns] * near
    glyph = glyph[bounding_box(glyph > INK_THRESHOLD)]
    scale = _CONFIG.glyph_side / max(glyph.shape)
    if scale < 1:
        small = max(1, round(glyph.shape[1] * scale)), max(1, round(glyph.shape[0] * scale))
        glyph = np.asarray(cv2.resize(glyph, small, interpolation=cv2.INTER_AREA), np.float32)
    return fit_to_mnist_canvas(glyph)


def _scale(box: Box, scale_x: float, scale_y: float) -> Box:
    left, top, width, height = box
    right, bottom = round((left + width) * scale_x), round((top + height) * scale_y)
    left, top = round(left * scale_x), round(top * scale_y)
    return left, top, right - left, bottom - top
