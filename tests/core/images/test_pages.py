"""Pages: grey, of bounded size."""

import numpy as np
import pytest

from digit_core.images import to_page


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((480, 640), (480, 640)),
        ((1200, 1600, 3), (400, 533)),
        ((30, 60), (60, 120)),
        ((10, 10, 4), (130, 130)),
        ((3, 4000), (1, 571)),
    ],
)
def test_to_page_has_bounded_sides(shape: tuple[int, ...], expected: tuple[int, int]) -> None:
    page = to_page(np.full(shape, 200, np.uint8))
    assert page.levels.shape == expected
    assert page.size == shape[:2]


def test_to_page_of_transparent_picture_lays_ink_on_paper() -> None:
    picture = np.zeros((200, 300, 4), np.uint8)
    picture[50:150, 140:160] = (20, 40, 160, 255)
    page = to_page(picture)
    assert page.levels[0, 0] == 255
    assert page.levels[100, 150] < 80


def test_page_boxes_are_within_the_picture() -> None:
    page = to_page(np.full((960, 1280), 200, np.uint8), (1920, 2560))
    assert page.to_picture(np.array([-3, 10, 20, 40], np.float32)) == (0, 40, 68, 160)
    assert page.to_picture(np.array([630, 470, 20, 40], np.float32)) == (2520, 1880, 40, 40)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((480, 640), [(96, 128), (480, 640)]), ((250, 250), [(250, 250)]), ((40, 30), [(120, 90)])],
)
def test_page_views_are_coarse_first(shape: tuple[int, int], expected: list[tuple[int, int]]) -> None:
    views = to_page(np.full(shape, 200, np.uint8)).views()
    assert [levels.shape for levels, _ in views] == expected
    assert [factor for _, factor in views] == [5, 1][-len(views) :]
