"""Crops of drawn pages: training examples such as the classifier gets from the reader in serving."""

import numpy as np
from numpy.typing import NDArray

from digit_core.images import Page, crop_digit
from digit_core.reading.boxes import intersections
from digit_core.reading.lines import digits_and_signs
from digit_core.reading.peaks import SIGN
from digit_training import shipped
from digit_training.data import NO_DIGIT, Examples
from digit_training.finder import finder
from digit_training.reader.handwriting import GlyphBank
from digit_training.reader.pages import PageWriter

GLYPHS = 1500
"""Largest number of glyphs of each origin, from which the pages are written."""
JITTER = 0.04
"""Standard deviation of a box's sides, as a share of its height, which is about the reader's error."""
MAX_COVERED = 0.3
"""Largest share of a digit that a neighbour's box covers; digits covered further are left to the reader."""
DISPLAY_PAGES = 0.5
"""Share of the pages of digits that show a display or a counter, of which MNIST has none."""
PAGES = 64
"""Number of pages on which the reader looks at once."""


def crop_digits(count: int, digits: Examples, rng: np.random.Generator) -> Examples:
    """Return `count` digits, cropped from drawn pages as in serving; `digits` are MNIST's training digits."""
    crops: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    writer = PageWriter(GlyphBank(digits, min(count, GLYPHS), rng)) if count else None
    while writer and len(crops) < count:
        shows_display = rng.random() < DISPLAY_PAGES
        drawn = writer.draw_display(rng, shows_digits=True) if shows_display else writer.draw(rng)
        page = Page(drawn.pixels, drawn.pixels.shape)
        common = intersections(drawn.boxes, drawn.boxes)
        np.fill_diagonal(common, 0)
        covered = common.sum(axis=1) / np.maximum(drawn.boxes[:, 2] * drawn.boxes[:, 3], 1)
        for box, label, share in zip(drawn.boxes, drawn.classes.tolist(), covered.tolist(), strict=True):
            if 0 <= label < SIGN and share <= MAX_COVERED:
                crop = crop_digit(
                    page, box + np.float32(JITTER * box[3]) * rng.standard_normal(4, np.float32)
                )
                if crop.any():
                    crops.append(crop)
                    labels.append(label)
    return Examples(np.array(crops[:count], np.uint8).reshape(-1, 28, 28), np.array(labels[:count], np.uint8))


def crop_negatives(count: int, digits: Examples, rng: np.random.Generator) -> Examples:
    """Return `count` crops of what the shipped reader takes for digits on drawn pages without a digit.

    `digits` are MNIST's training digits, from which some sketches take parts.
    """
    crops: list[NDArray[np.uint8]] = []
    if count:
        writer = PageWriter(GlyphBank(digits, min(count, GLYPHS), rng))
        find = finder(shipped.load_detector())
    while len(crops) < count:
        pages = np.stack([writer.draw_sketches(rng).pixels for _ in range(PAGES)])
        for pixels, peaks in zip(pages, find(pages), strict=True):
            page = Page(pixels, pixels.shape)
            taken, _ = digits_and_signs(peaks)
            crops += [crop for crop in (crop_digit(page, box) for box in taken.boxes) if crop.any()]
    images = np.array(crops[:count], np.uint8).reshape(-1, 28, 28)
    return Examples(images, np.full(len(images), NO_DIGIT, np.uint8))
