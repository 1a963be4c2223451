"""Characters of displays: which segments and dots they show."""

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest

from digit_training.drawing.displays import ALL, DOTS, SEGMENTS, Face

RNG = np.random.default_rng(0)
FACES = [Face.any(RNG) for _ in range(200)]
DIGITS = "0123456789"


def test_faces_are_segments_matrices_and_lamps_of_all_forms() -> None:
    assert 10 < sum(face.is_matrix for face in FACES) < 80
    assert 5 < sum(face.lamps > 0 for face in FACES) < 50
    assert {(face.has_bars, face.has_hook) for face in FACES} == {*product((False, True), repeat=2)}
    assert 0.7 < np.mean([face.has_bars for face in FACES]) < 0.9


@pytest.mark.parametrize("face", FACES[:40])
def test_draw_shows_part_of_all_segments_and_other_ink_for_each_digit(face: Face) -> None:
    every = face.draw(ALL, 48)
    inks = [face.draw(digit, 48) for digit in DIGITS]
    assert every.shape[0] == 48
    assert all(ink.shape == every.shape and ink.max() > 0.5 and (ink <= every + 1e-6).all() for ink in inks)
    assert all(np.abs(first - second).sum() > 5 for first, second in pairwise(inks))
    assert not face.draw(" ", 48).any()


def test_one_stands_at_the_right_of_its_cell() -> None:
    face = replace(next(face for face in FACES if not face.dot), slant=0.0)
    columns = np.flatnonzero(face.draw("1", 60).any(axis=0))
    assert columns.min() > 0.5 * 60 * face.width


def test_forms_add_bars_of_six_and_nine_and_the_hook_of_seven() -> None:
    segments = next(face for face in FACES if not face.dot)
    plain = replace(segments, has_bars=False, has_hook=False)
    areas = [
        [face.draw(digit, 60).sum() for digit in "697"]
        for face in (plain, replace(plain, has_bars=True), replace(plain, has_hook=True))
    ]
    assert areas[1][0] > areas[0][0]
    assert areas[1][1] > areas[0][1]
    assert areas[2][2] > areas[0][2]
    assert (areas[1][2], areas[2][:2]) == (areas[0][2], areas[0][:2])


def test_letters_equal_no_digit() -> None:
    shown = {frozenset(form) for digit in DIGITS for form in SEGMENTS[digit]}
    letters = [frozenset(SEGMENTS[letter][0]) for letter in SEGMENTS if letter.isalpha()]
    assert not shown & {*letters}
    assert len({DOTS[character] for character in DOTS}) == len(DOTS)
