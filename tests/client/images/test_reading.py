"""Reading: predictions of the candidates become digits in lines."""

import numpy as np
import pytest

from digit_client import Prediction, images
from digit_client.artifact.task_card import DIGIT_LABELS
from digit_client.images.candidates import Candidate, Candidates, Layer


def prediction(digit: int, is_digit: float | None = 0.99, probability: float = 0.98) -> Prediction:
    rest = (1 - probability) / 9
    probabilities = tuple(probability if other == digit else rest for other in range(10))
    confidence = probability if is_digit is None else probability * is_digit
    return Prediction(digit, confidence, probabilities, DIGIT_LABELS, 3, is_digit)


NOTHING = prediction(1, 0.01)


def layer(*candidates: tuple[int, tuple[int, int, int, int]], first: int = 0) -> Layer:
    """Return a layer of candidates, each a bit set of atoms and a box; atoms are components of equal ink."""
    found = tuple(Candidate(bits, box, first + index) for index, (bits, box) in enumerate(candidates))
    components = [box for bits, box in candidates if bits.bit_count() == 1]
    count = len(components)
    return Layer(found, tuple(components), tuple(range(count)), (1 / count,) * count)


def candidates(*layers: Layer) -> Candidates:
    count = sum(len(layer.candidates) for layer in layers)
    return Candidates(np.zeros((count, 28, 28), np.uint8), layers, (200, 400))


def assert_refused(candidates: Candidates, predictions: list[Prediction]) -> None:
    reading = images.read(candidates, predictions)
    assert (reading.refusal, reading.text, reading.lines) == ("no_digit", "", ())


ROW = layer((1, (10, 50, 20, 40)), (2, (40, 52, 20, 40)), (4, (70, 50, 10, 40)))


def test_read_row_returns_line() -> None:
    reading = images.read(candidates(ROW), [prediction(2), prediction(0), prediction(6)])
    assert reading.text == "206"
    assert reading.model_version == 3
    assert [digit.box for digit in reading.digits] == [(10, 50, 20, 40), (40, 52, 20, 40), (70, 50, 10, 40)]
    assert reading.lines[0].box == (10, 50, 70, 42)
    assert reading.digits[0].confidence == 0.98 * 0.99


def test_read_no_digit_in_long_row_is_left_out() -> None:
    row = layer(*((1 << number, (30 * number, 50, 20, 40)) for number in range(5)))
    answers = [prediction(2), prediction(3), NOTHING, prediction(4), prediction(6)]
    assert images.read(candidates(row), answers).text == "2346"


def test_read_two_rows_are_lines() -> None:
    below = layer(
        (1, (40, 120, 20, 40)), (2, (10, 20, 20, 40)), (4, (10, 124, 20, 40)), (8, (40, 20, 20, 40))
    )
    reading = images.read(candidates(below), [prediction(4), prediction(1), prediction(3), prediction(2)])
    assert reading.text == "12\n34"
    assert [line.text for line in reading.lines] == ["12", "34"]


def test_read_slanted_row_is_one_line() -> None:
    slanted = layer(*((1 << number, (30 * number, 15 * number, 20, 40)) for number in range(5)))
    assert images.read(candidates(slanted), [prediction(digit) for digit in range(5)]).text == "01234"


def test_read_digit_of_two_parts_is_joined() -> None:
    parts = layer((1, (10, 10, 30, 20)), (2, (15, 35, 25, 30)), (3, (10, 10, 30, 55)))
    assert images.read(candidates(parts), [NOTHING, prediction(1, 0.6), prediction(5)]).text == "5"


def test_read_touching_digits_are_separated() -> None:
    touching = layer((1, (10, 10, 30, 50)), (2, (40, 10, 30, 50)), (3, (10, 10, 60, 50)))
    assert images.read(candidates(touching), [prediction(3), prediction(8), prediction(0, 0.05)]).text == "38"


def test_read_comma_is_left_out() -> None:
    with_comma = layer((1, (10, 10, 30, 50)), (2, (45, 55, 5, 10)), (4, (60, 10, 30, 50)))
    assert images.read(candidates(with_comma), [prediction(3), prediction(1), prediction(5)]).text == "35"


SIGNED = layer(*((1 << number, (30 * number, 50, 20, 40)) for number in range(5)))


def test_read_signs_at_ends_of_number_are_left_out() -> None:
    answers = [NOTHING, prediction(2), prediction(0), prediction(6), NOTHING]
    assert images.read(candidates(SIGNED), answers).text == "206"


@pytest.mark.parametrize(
    "answers",
    [
        [NOTHING, prediction(2), prediction(0), prediction(6, 0.8), NOTHING],
        [NOTHING, NOTHING, prediction(2), prediction(0), NOTHING],
        [prediction(2), NOTHING, prediction(0), NOTHING, prediction(6)],
    ],
    ids=["unsure", "two digits", "between digits"],
)
def test_read_digits_among_letters_are_refused(answers: list[Prediction]) -> None:
    assert_refused(candidates(SIGNED), answers)


def test_read_frame_around_digit_is_left_out() -> None:
    framed = layer((1, (0, 0, 100, 100)), (2, (30, 20, 30, 60)))
    assert images.read(candidates(framed), [prediction(0), prediction(5)]).text == "5"


def test_read_strip_at_edge_is_left_out() -> None:
    with_strip = layer((1, (150, 50, 20, 40)), (2, (180, 50, 20, 40)), (4, (390, 20, 8, 150)))
    assert images.read(candidates(with_strip), [prediction(4), prediction(2), prediction(1)]).text == "42"


def test_read_remains_of_grid_are_left_out() -> None:
    hairlines = layer(
        (1, (150, 50, 20, 40)), (2, (180, 50, 20, 40)), (4, (200, 10, 3, 120)), (8, (260, 130, 2, 40))
    )
    answers = [prediction(4), prediction(2), prediction(1), prediction(1)]
    assert images.read(candidates(hairlines), answers).text == "42"


@pytest.mark.parametrize("is_lone", [True, False])
def test_read_unsure_digit_is_accepted_if_normalise_finds_it(is_lone: bool) -> None:
    box = (10, 10, 30, 50)
    picture = candidates(Layer((Candidate(1, box, 0, is_lone=is_lone),), (box,), (0,), (1.0,)))
    reading = images.read(picture, [prediction(7, 0.6, 0.7)])
    assert (reading.text, reading.refusal) == (("7", None) if is_lone else ("", "no_digit"))


def test_read_surer_mask_wins() -> None:
    unsure, sure = layer((1, (10, 10, 30, 50))), layer((1, (12, 10, 28, 50)), first=1)
    assert images.read(candidates(unsure, sure), [prediction(4, 0.6), prediction(9)]).text == "9"


def test_read_barcode_is_refused() -> None:
    bars = layer(*((1 << number, (10 * number, 10, 4, 60)) for number in range(12)))
    assert_refused(candidates(bars), [prediction(1)] * 12)


def pieces(*digits: int) -> tuple[Candidates, list[Prediction]]:
    """Return one component that is cut into equal pieces, each read as a digit; 0 reads as nothing."""
    count = len(digits)
    found = tuple(
        Candidate(1 << index, (40 * index, 10, 40, 60), index, is_piece=True) for index in range(count)
    )
    component = Layer(found, ((0, 10, 40 * count, 60),), (0,) * count, (1 / count,) * count)
    return candidates(component), [prediction(digit) if digit else NOTHING for digit in digits]


def test_read_pieces_of_number_are_digits() -> None:
    assert images.read(*pieces(1, 7, 4)).text == "174"


@pytest.mark.parametrize("digits", [(1, 1), (7, 0), (0, 3, 0)])
def test_read_pieces_of_letter_are_refused(digits: tuple[int, ...]) -> None:
    assert_refused(*pieces(*digits))


def test_read_model_without_is_digit_is_lenient() -> None:
    answers = [prediction(digit, None, 0.3) for digit in (2, 0, 6)]
    assert images.read(candidates(ROW), answers).text == "206"


def test_read_model_without_is_digit_refuses_confidence_of_chance() -> None:
    assert_refused(candidates(ROW), [prediction(digit, None, 0.12) for digit in (2, 0, 6)])


@pytest.mark.parametrize(
    "answers", [[NOTHING] * 3, [prediction(1, 0.3)] * 3, [prediction(1), NOTHING, NOTHING]]
)
def test_read_no_digits_is_refused(answers: list[Prediction]) -> None:
    assert_refused(candidates(ROW), answers)


@pytest.mark.parametrize(("min_is_digit", "text"), [(0.6, "7"), (0.61, "")])
def test_read_lone_digit_obeys_threshold(min_is_digit: float, text: str) -> None:
    box = (10, 10, 30, 50)
    picture = candidates(Layer((Candidate(1, box, 0, is_lone=True),), (box,), (0,), (1.0,)))
    assert images.read(picture, [prediction(7, 0.6)], min_is_digit).text == text


def test_digit_indexes_are_those_of_the_reading() -> None:
    answers = [prediction(1), prediction(2), prediction(3)]
    assert sorted(images.digit_indexes(candidates(ROW), answers)) == [0, 1, 2]
    assert images.digit_indexes(candidates(ROW), [NOTHING] * 3) == []
