import pytest

from digit_training.styles import STYLES, lines


def test_lines_are_read_in_the_order_of_writing() -> None:
    assert lines("15,5 100,0 / 0,90 10,45") == (((0.15, 0.05), (1, 0)), ((0, 0.9), (0.1, 0.45)))


def test_each_digit_has_styles() -> None:
    assert {digit for digit, _ in STYLES} == set(range(10))


def test_no_style_is_there_twice() -> None:
    assert len({style for _, style in STYLES}) == len(STYLES)


@pytest.mark.parametrize(("digit", "style"), STYLES)
def test_every_style_fills_its_height(digit: int, style: str) -> None:
    written = lines(style)
    corners = [corner for line in written for corner in line]
    assert min(len(line) for line in written) > 1
    assert all(0 <= part <= 1 for corner in corners for part in corner)
    assert max(y for _, y in corners) - min(y for _, y in corners) >= 0.9, digit
