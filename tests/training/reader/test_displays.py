"""Pages of displays and counters: what they show, and the boxes of it."""

import numpy as np
import pytest

from digit_core.reading.peaks import SIGN
from digit_training.data import Dataset
from digit_training.drawing.displays import ALL, Face
from digit_training.reader.displays import Mark, Panel, draw_panel
from digit_training.reader.handwriting import GlyphBank
from digit_training.reader.pages import PAGE_SHAPE, Page, PageWriter


@pytest.fixture(scope="module")
def bank(dataset: Dataset) -> GlyphBank:
    return GlyphBank(dataset.train[:200], 100, np.random.default_rng(0))


@pytest.fixture(scope="module")
def panels(bank: GlyphBank) -> list[Panel]:
    rng = np.random.default_rng(1)
    return [draw_panel(bank, PAGE_SHAPE, rng) for _ in range(150)]


@pytest.fixture(scope="module")
def pages(bank: GlyphBank) -> list[Page]:
    rng, writer = np.random.default_rng(2), PageWriter(bank)
    return [writer.draw_display(rng, shows_digits=True) for _ in range(300)]


def test_panels_show_every_digit_and_signs(panels: list[Panel]) -> None:
    assert {mark.label for panel in panels for mark in panel.marks} == {*range(SIGN + 1)}
    assert all(panel.levels.shape == panel.owner.shape == PAGE_SHAPE for panel in panels)


def test_panels_have_light_and_dark_digits(panels: list[Panel]) -> None:
    differences = [
        panel.levels[panel.owner > 0].mean() - panel.levels[panel.owner == 0].mean()
        for panel in panels
        if panel.owner.any()
    ]
    assert 0.2 < np.mean(np.array(differences) > 0) < 0.9


def test_pages_have_boxes_within_and_mostly_readable(pages: list[Page]) -> None:
    boxes = np.concatenate([page.boxes for page in pages])
    classes = np.concatenate([page.classes for page in pages])
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= PAGE_SHAPE[::-1]).all()
    assert (classes >= 0).mean() > 0.8
    assert {*classes.tolist()} == {-1, *range(SIGN + 1)}


def test_close_pages_show_one_digit_that_fills_what_is_not_padding(pages: list[Page]) -> None:
    corner = [
        page for page in pages if len(page.boxes) == 1 and page.boxes[0, :2].max() < 0.35 * page.boxes[0, 3]
    ]
    assert len(corner) > 0.1 * len(pages)


def test_ink_outside_of_a_panel_makes_no_mark() -> None:
    ink = Face.any(np.random.default_rng(0)).draw(ALL, 40)
    panel = Panel(np.zeros(PAGE_SHAPE, np.float32), np.zeros(PAGE_SHAPE, np.uint8))
    panel.put(ink, panel.levels, 20, -500, 8)
    assert not panel.marks
    assert not panel.levels.any()
    panel.put(ink, panel.levels, 20, -20, 8)
    assert panel.marks == [Mark(8, int((ink > 0.4).sum()))]
    assert panel.owner.max() == 1


def test_displays_without_digits_have_no_boxes(bank: GlyphBank) -> None:
    rng, writer = np.random.default_rng(3), PageWriter(bank)
    empty = [writer.draw_display(rng, shows_digits=False) for _ in range(60)]
    assert not any(len(page.boxes) for page in empty)
