"""Characters of displays: seven segments, and 5×7 dots, as polygons of a random geometry."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

ALL = "*"
"""Every segment, or every dot, as the unlit ones show on some displays."""
SEGMENTS: dict[str, tuple[str, ...]] = {
    "0": ("abcdef",), "1": ("bc",), "2": ("abged",), "3": ("abgcd",), "4": ("fgbc",), "5": ("afgcd",),
    "6": ("afgedc", "fgedc"), "7": ("abc", "fabc"), "8": ("abcdefg",), "9": ("abcdfg", "abcfg"),
    "A": ("abcefg",), "C": ("adef",), "E": ("adefg",), "F": ("aefg",), "H": ("bcefg",), "J": ("bcde",),
    "L": ("def",), "P": ("abefg",), "U": ("bcdef",), "c": ("deg",), "d": ("bcdeg",), "h": ("cefg",),
    "n": ("ceg",), "r": ("eg",), "t": ("defg",), "u": ("cde",),
    "-": ("g",), " ": ("",), ALL: ("abcdefg",),
}  # fmt: skip
"""Forms of each character: its segments, clockwise from the top, then the middle one.

A small o is left out: its crop is a 0.
"""
LETTERS = "".join(filter(str.isalpha, SEGMENTS))
DOTS = {
    "0": "0E11111111110E", "1": "040C040404040E", "2": "0E11010204081F", "3": "0E11010601110E",
    "4": "02060A121F0202", "5": "1F101E0101110E", "6": "0608101E11110E", "7": "1F010204080808",
    "8": "0E11110E11110E", "9": "0E11110F01020C", "A": "0E11111F111111", "C": "0E11101010110E",
    "E": "1F10101E10101F", "F": "1F10101E101010", "H": "1111111F111111", "K": "11121418141211",
    "M": "111B1515111111", "P": "1E11111E101010", "-": "0000001F000000", " ": "00000000000000",
    ALL: "1F1F1F1F1F1F1F",
}  # fmt: skip
"""Seven rows of five dots, each two hexadecimal digits."""
_COLUMNS, _ROWS = 5, 7
Corners = NDArray[np.float64]
"""Corners of a polygon, float64 [n, 2] of x and y."""
_FINE = 4
"""Factor of the resolution at which a character is drawn, before it is reduced."""


@dataclass(frozen=True)
class Face:
    """Geometry that all characters of a display share; lengths are shares of their height."""

    width: float
    thickness: float
    gap: float
    outer: float
    """Chamfer: how far the outer corner of a segment is from its end's, as a share of the thickness."""
    tip: float
    """The same for the middle of the end: 0.5 is a point, 1 is straight."""
    slant: float
    """Pixels to the right per pixel upwards."""
    has_bars: bool
    """True if 6 and 9 have their bars, which most have: a 6 without is easier, since a 5 has one, too."""
    has_hook: bool
    """True if 7 has its hook."""
    dot: float
    """Diameter of a dot or a lamp as a share of the distance between two; 0 for segments of one piece."""
    lamps: int
    """Lamps in a row that make a segment; 0 for a matrix of dots."""
    sides: int
    """Corners of a dot or a lamp."""

    @classmethod
    def any(cls, rng: np.random.Generator) -> "Face":
        """Return a random face: a fifth are matrices of dots, a tenth have rows of lamps as segments."""
        kind = rng.random()
        width = float(rng.uniform(0.55, 0.85) if kind < 0.2 else rng.uniform(0.4, 0.72))
        return cls(
            width=width,
            thickness=float(width * rng.uniform(0.14, 0.3)),
            gap=float(rng.uniform(0, 0.012) if rng.random() < 0.4 else rng.uniform(0.012, 0.045)),
            outer=float(rng.choice((0.0, 0.5, 1.0)) if rng.random() < 0.7 else rng.uniform(0, 1)),
            tip=float(rng.uniform(0.5, 1.0)),
            slant=float(0 if kind < 0.2 or rng.random() < 0.35 else rng.uniform(0.03, 0.2)),
            has_bars=bool(rng.random() < 0.8),
            has_hook=bool(rng.random() < 0.5),
            dot=float(rng.uniform(0.6, 1.0)) if kind < 0.3 else 0.0,
            lamps=int(rng.integers(3, 7)) if 0.2 <= kind < 0.3 else 0,
            sides=4 if rng.random() < 0.6 else 10,
        )

    @property
    def is_matrix(self) -> bool:
        """True for a matrix of dots."""
        return self.dot > 0 and not self.lamps

    @property
    def characters(self) -> str:
        """Return the letters that this face can show, none of which equals a digit."""
        return "".join(filter(str.isalpha, DOTS)) if self.is_matrix else LETTERS

    def draw(self, character: str, height: float) -> NDArray[np.float32]:
        """Draw a character in its cell, `height` pixels high: a soft mask, float32 [h, w] in 0..1."""
        rows, columns = max(2, round(height)), max(2, round(height * (self.width + self.slant)))
        canvas = np.zeros((_FINE * rows, _FINE * columns), np.uint8)
        for corners in self._dots(character) if self.is_matrix else self._segments(character):
            corners[:, 0] += self.slant * (1 - corners[:, 1])
            cv2.fillPoly(canvas, [np.rint(corners * _FINE * rows).astype(np.int32)], 255)
        reduced = cv2.resize(canvas, (columns, rows), interpolation=cv2.INTER_AREA)
        return np.asarray(reduced / np.float32(255), np.float32)

    def _segments(self, character: str) -> Iterator[Corners]:
        """Yield the corners of each segment, or of its lamps, from (0, 0) at the top left to (width, 1)."""
        width, thick, gap = self.width, self.thickness, self.gap
        outer, tip, inner = gap + self.outer * thick, gap + self.tip * thick, gap + thick
        upper, lower, end = 0.5 - thick / 2, 0.5 + thick / 2, 0.5 - gap
        # A segment has its ends' middles at the first and the fourth corner.
        top = [(tip, thick / 2), (outer, 0), (width - outer, 0), (width - tip, thick / 2),
               (width - inner, thick), (inner, thick)]  # fmt: skip
        middle = [(tip, 0.5), (inner, upper), (width - inner, upper), (width - tip, 0.5),
                  (width - inner, lower), (inner, lower)]  # fmt: skip
        left = [(thick / 2, tip), (thick, inner), (thick, end - thick / 2),
                (thick / 2, end - (self.tip - 0.5) * thick), (0, end - self.outer * thick / 2),
                (0, outer)]  # fmt: skip
        is_second = self.has_hook if character == "7" else not self.has_bars
        for name in SEGMENTS[character][-1 if is_second else 0]:
            corners = np.array(middle if name == "g" else top if name in "ad" else left)
            if name in "bc":
                corners[:, 0] = width - corners[:, 0]
            if name in "cde":
                corners[:, 1] = 1 - corners[:, 1]
            if not self.lamps:
                yield corners
                continue
            step = (corners[3] - corners[0]) / self.lamps
            for number in range(self.lamps):
                yield corners[0] + (number + 0.5) * step + self._dot() * np.abs(step).max()

    def _dots(self, character: str) -> Iterator[Corners]:
        """Yield the corners of each dot."""
        pitch = np.array((self.width / _COLUMNS, 1 / _ROWS))
        for row, bits in enumerate(bytes.fromhex(DOTS[character])):
            for column in range(_COLUMNS):
                if bits >> (_COLUMNS - 1 - column) & 1:
                    yield (np.array((column, row)) + 0.5 + self._dot()) * pitch

    def _dot(self) -> Corners:
        """Return the corners of a dot around (0, 0), where the distance between two is 1."""
        angles = 2 * np.pi * (np.arange(self.sides) + 0.5) / self.sides
        radius = self.dot / 2 / np.cos(np.pi / self.sides)
        return np.asarray(radius * np.stack((np.cos(angles), np.sin(angles)), axis=1))
