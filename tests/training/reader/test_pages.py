"""Pages: what is written on them, and where."""

from typing import Any

import numpy as np
import pytest

from digit_core.reading.peaks import SIGN
from digit_training.data import Examples
from digit_training.reader.handwriting import GlyphBank
from digit_training.reader.pages import PAGE_SHAPE, Page, PageWriter


@pytest.fixture(scope="module")
def writer(digits: Any) -> PageWriter:
    examples = Examples(digits.images[:1000], digits.labels[:1000])
    return PageWriter(GlyphBank(examples, 200, np.random.default_rng(0)))


@pytest.fixture(scope="module")
def pages(writer: PageWriter) -> list[Page]:
    rng = np.random.default_rng(1)
    return [writer.draw(rng) for _ in range(300)]


def test_pages_have_boxes_of_known_classes_within(pages: list[Page]) -> None:
    for page in pages:
        assert page.pixels.shape == PAGE_SHAPE
        assert page.pixels.dtype == np.uint8
        assert page.boxes.shape == (len(page.classes), 4)
        assert ((page.classes >= -1) & (page.classes <= SIGN)).all()
        left, top, width, height = page.boxes.T
        assert (page.boxes >= 0).all()
        assert (left + width <= PAGE_SHAPE[1]).all()
        assert (top + height <= PAGE_SHAPE[0]).all()


def test_pages_show_every_digit_signs_and_nothing(pages: list[Page]) -> None:
    classes = np.concatenate([page.classes for page in pages])
    assert {*range(SIGN + 1)} <= {*classes.tolist()}
    assert 0.15 < np.mean([not len(page.classes) for page in pages]) < 0.45


def test_boxes_enclose_ink(pages: list[Page]) -> None:
    inside, around = [], []
    for page in pages:
        for (left, top, width, height), label in zip(
            page.boxes.astype(int).tolist(), page.classes.tolist(), strict=True
        ):
            if 0 <= label < SIGN:
                area = page.pixels[top : top + height, left : left + width]
                inside.append(np.ptp(area.astype(int)))
                around.append(np.ptp(page.pixels.astype(int)))
    assert np.mean(inside) > 0.6 * np.mean(around)


def test_pages_of_a_seed_change_on_purpose_only(pages: list[Page], writer: PageWriter) -> None:
    """Another page makes other networks of the same commands; replace the figures if it is meant."""
    boxes = np.concatenate([page.boxes for page in pages])
    assert [len(boxes), *boxes.mean(axis=0)] == pytest.approx([1335, 80.89, 30.42, 19.31, 26.05], abs=0.01)
    assert np.mean([page.pixels.mean() for page in pages]) == pytest.approx(141.13, abs=0.01)
    rng = np.random.default_rng(1)
    sketches = [writer.draw_sketches(rng) for _ in range(50)]
    assert not any(len(page.boxes) for page in sketches)
    assert np.mean([page.pixels.mean() for page in sketches]) == pytest.approx(109.60, abs=0.01)
