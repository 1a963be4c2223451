"""Surfaces: which share of the pages has which background, and which light."""

import numpy as np
import pytest

from digit_training.reader.surfaces import Sheet, furnish, photograph

SHAPE = (96, 128)
COUNT = 1000


def sheets(is_written: bool) -> list[Sheet]:
    """Return furnished sheets."""
    rng = np.random.default_rng(0)
    furnished = [Sheet(np.zeros(SHAPE, np.float32)) for _ in range(COUNT)]
    for sheet in furnished:
        furnish(sheet, rng, is_written=is_written)
    return furnished


def share(conditions: list[bool]) -> float:
    return sum(conditions) / len(conditions)


def test_furnish_puts_scenes_behind_most_pages_without_writing_and_few_others() -> None:
    assert share([sheet.scene is not None for sheet in sheets(False)]) == pytest.approx(0.75, abs=0.05)
    assert share([sheet.scene is not None for sheet in sheets(True)]) == pytest.approx(0.02, abs=0.015)


def test_furnish_prints_on_a_third_of_the_written_pages() -> None:
    printed = [sheet.printed > 0 for sheet in sheets(True)]
    assert share([bool(ink.any()) for ink in printed]) == pytest.approx(0.34, abs=0.05)
    # Guilloche covers most of a page, rules and squares cross it.
    assert share([bool(ink.mean() > 0.5) for ink in printed]) == pytest.approx(0.08, abs=0.025)
    crossed = [bool((ink.mean() <= 0.5) & ink.any(axis=0).all() & ink.any(axis=1).all()) for ink in printed]
    assert share(crossed) == pytest.approx(0.1, abs=0.05)
    assert not any(sheet.printed.any() for sheet in sheets(False))


def test_photograph_is_a_screen_for_a_fifth_and_has_light_ink_for_a_sixth() -> None:
    rng, ink = np.random.default_rng(0), np.zeros(SHAPE, np.float32)
    ink[20:70, 30:90] = 1
    pages = [photograph(ink, Sheet(np.zeros(SHAPE, np.float32)), rng) for _ in range(COUNT)]
    assert share([len(np.unique(page)) == 2 for page in pages]) == pytest.approx(0.2, abs=0.04)
    lighter = [bool(np.median(page[ink > 0]) > np.median(page[ink == 0])) for page in pages]
    assert share(lighter) == pytest.approx(0.16, abs=0.04)


def test_photograph_of_a_scene_is_never_a_screen() -> None:
    rng, ink = np.random.default_rng(0), np.zeros(SHAPE, np.float32)
    for sheet in sheets(False)[:100]:
        if sheet.scene is not None:
            assert len(np.unique(photograph(ink, sheet, rng))) > 2
