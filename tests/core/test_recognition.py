"""Recognition: one outcome for each picture, whatever its form and the model's answer."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from digit_core import errors
from digit_core.artifact.task_card import DIGITS, CardInput, TaskCard
from digit_core.images import to_png
from digit_core.options import ReadOptions, parse
from digit_core.reading.peaks import Peaks
from digit_core.recognition import MAX_BATCH, Classify, Find, Outcome, Recognition, drive, to_pixels
from digit_core.results import MIN_IS_DIGIT, Answer, Prediction, Reading
from tests.core.component_reader import find_components
from tests.core.drawn_numbers import draw_lines
from tests.core.linear_model import LinearModel

PHOTOS = TaskCard("photos", ("dark", "light"), CardInput((4, 6, 3), (-1.0, 1.0)))
FORMS: dict[str, Callable[[NDArray[np.uint8]], Any]] = {
    "file": to_png,
    "array": lambda picture: picture,
    "float array": lambda picture: picture / 255,
}


@pytest.fixture(scope="module")
def model(digits: Any) -> LinearModel:
    return LinearModel(digits.images[:1000], digits.labels[:1000], with_is_digit=True)


def said(shares: dict[int, float], is_digit: float = 0.99) -> Prediction:
    """Return the model's answer with these probabilities of digits, the first one the most probable."""
    label, confidence = next(iter(shares.items()))
    probabilities = tuple(shares.get(each, 0.0) for each in range(10))
    return Prediction(label, confidence, probabilities, DIGITS.labels, 1, is_digit=is_digit)


def peaks(boxes: Sequence[Sequence[int]], shares: dict[int, float], score: float = 0.98) -> Peaks:
    """Return a peak in each box, with these probabilities of symbols."""
    classes = np.array([[shares.get(symbol, 0.0) for symbol in range(11)]] * len(boxes), np.float32)
    places = np.array(boxes, np.float32).reshape(-1, 4)
    return Peaks(np.full(len(boxes), score, np.float32), classes.reshape(-1, 11), places)


def spread(digit: int, share: float, symbols: int = 10) -> dict[int, float]:
    """Return this probability of a digit, and an equal one of each other symbol."""
    return {digit: share, **{each: (1 - share) / (symbols - 1) for each in range(symbols) if each != digit}}


def missing_reader(page: Any) -> Any:
    raise errors.ReaderMissingError("no reader")


class Recognizer:
    """Recognition, driven by functions of this process. `sizes` has the number of rows of each call."""

    def __init__(
        self,
        classify: Callable[[Any], Sequence[Any]],
        task: TaskCard,
        find: Any = missing_reader,
        max_batch: int = MAX_BATCH,
        **options: Any,
    ) -> None:
        self.classify, self._find = classify, find
        self.sizes: list[int] = []
        self._recognition = Recognition(task, max_batch, parse(ReadOptions, options))

    def ask(self, request: Classify | Find) -> Any:
        if isinstance(request, Find):
            return self._find(request.page)
        self.sizes.append(len(request.batch))
        return self.classify(request.batch)

    def predict(self, pictures: Any) -> Iterator[Outcome[Prediction]]:
        return drive(self._recognition.predict(pictures), self.ask)

    def read(self, pictures: Any) -> Iterator[Outcome[Reading]]:
        return drive(self._recognition.read(pictures), self.ask)


@pytest.fixture
def recognition(model: LinearModel) -> Recognizer:
    return Recognizer(model.classify, DIGITS, find=find_components)


def answer(outcome: Outcome[Any]) -> Any:
    """Return what is asked for: digit or text, refusal and count, or the type of the error."""
    result = outcome.result
    if isinstance(result, Exception):
        return type(result)
    if isinstance(result, Reading):
        return result.refusal or result.text
    return (result.refusal, result.count) if result.refusal else result.digit


@pytest.fixture(scope="module")
def pictures(digits: Any) -> dict[str, NDArray[np.uint8]]:
    dash = np.full((120, 120), 255, np.uint8)
    dash[55:65, 20:100] = 0
    return {
        "in MNIST's form": digits.one(3),
        "dark on white": draw_lines([digits.one(3)]),
        "two lines": draw_lines([digits.one(1), digits.one(7)], [digits.one(4)]),
        "blank": np.full((90, 120), 255, np.uint8),
        "dash": dash,
    }


@pytest.fixture
def shaded(digits: Any) -> NDArray[np.uint8]:
    """Page of 640×640 pixels with a 3, which its shade makes no drawing."""
    shade = np.linspace(0, 40, 640).astype(np.uint8)[:, np.newaxis]
    return np.asarray(np.maximum(cv2.resize(draw_lines([digits.one(3)]), (640, 640)), 40) - shade)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("name", "predicted", "read"),
    [
        ("in MNIST's form", 3, "3"),
        ("dark on white", 3, "3"),
        ("two lines", ("several_digits", 3), "17\n4"),
        ("blank", ("no_digit", None), "no_digit"),
        ("dash", ("no_digit", None), "no_digit"),
    ],
)
def test_recognition_picture_in_any_form_has_same_outcome(
    recognition: Recognizer, pictures: Any, name: str, form: str, predicted: Any, read: str
) -> None:
    picture = FORMS[form](pictures[name])
    assert [answer(outcome) for outcome in recognition.predict([picture])] == [predicted]
    assert [answer(outcome) for outcome in recognition.read([picture])] == [read]


@pytest.mark.parametrize(("name", "is_refused"), [("dash", True), ("blank", True), ("two lines", False)])
def test_predict_is_digit_alone_decides_if_there_is_a_digit(
    recognition: Recognizer, pictures: Any, name: str, is_refused: bool
) -> None:
    (outcome,) = recognition.predict([pictures[name]])
    assert isinstance(outcome.result, Prediction)
    assert outcome.result.is_digit is not None
    assert (outcome.result.refusal == "no_digit") is is_refused is (outcome.result.is_digit < MIN_IS_DIGIT)
    assert (outcome.result.is_digit == 0) is (name == "blank")
    # A refusal has the model's numbers on what is shown.
    assert (outcome.result.label, outcome.result.digit) == (None, None)
    (expected,) = recognition.classify(np.stack(outcome.inputs))
    assert outcome.result.index == expected.index
    assert outcome.result.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
    assert outcome.result.confidence == pytest.approx(expected.confidence, abs=1e-5)


def test_predict_answer_of_the_reader_has_its_doubt_and_its_box(
    recognition: Recognizer, pictures: Any
) -> None:
    shade = np.linspace(0, 40, len(pictures["dark on white"])).astype(np.uint8)[:, np.newaxis]
    (outcome,) = recognition.predict([np.maximum(pictures["dark on white"], 40) - shade])
    (expected,) = recognition.classify(np.stack(outcome.inputs))
    found: Any = outcome.result
    assert found.digit == expected.digit == 3
    assert found.confidence == max(found.probabilities) == pytest.approx(expected.confidence, abs=1e-4)
    assert None not in (found.is_digit, expected.is_digit)
    assert found.is_digit != expected.is_digit
    assert expected.box is None
    left, top, width, height = found.box
    assert width < height
    assert 40 <= left < left + width <= 120
    assert 40 <= top < top + height <= 120


@pytest.mark.parametrize(
    ("coarse", "fine", "score", "is_digit", "predicted", "read"),
    [
        (1, 2, 0.99, 0.95, 3, "33"),
        (1, 2, 0.3, 0.9, ("several_digits", 2), "33"),
        (1, 2, 0.3, 0.95, 3, "33"),
        (1, 1, 0.06, 0.95, 3, "3"),
        (1, 1, 0.06, 0.9, ("no_digit", None), "no_digit"),
        (0, 0, 0, 0.95, ("no_digit", None), "no_digit"),
    ],
)
def test_recognition_coarse_view_decides_if_it_is_sure_and_all_ink_where_the_reader_sees_parts(
    shaded: Any, coarse: int, fine: int, score: float, is_digit: float, predicted: Any, read: str
) -> None:
    """The reader finds so many digits in the coarse view, of this score, and on the page."""
    boxes = [[180, 180, 280, 280], [480, 180, 100, 280]]

    def find(levels: NDArray[np.uint8]) -> Peaks:
        if len(levels) == 640:
            return peaks(boxes[:fine], {3: 1.0}, 0.99 if fine == 2 else score)
        return peaks(boxes[:coarse], {3: 1.0}, score).scaled(len(levels) / 640)

    recognizer = Recognizer(
        lambda batch: [said({3: 0.95, 8: 0.05}, is_digit)] * len(batch), DIGITS, find=find
    )
    assert [answer(outcome) for outcome in recognizer.predict([shaded])] == [predicted]
    assert [answer(outcome) for outcome in recognizer.read([shaded])] == [read]


@pytest.mark.parametrize(("doubt", "digit"), [(0.2, 5), (0.05, 3)])
def test_recognition_unsure_of_a_part_takes_all_ink_of_which_the_model_is_sure(
    shaded: Any, doubt: float, digit: int
) -> None:
    """The reader finds a 3, a part of the picture that the model takes for a 5 as a whole."""
    part = peaks([[180, 180, 100, 100]], {3: 0.5, 8: 0.5}, 0.99)

    def recognizer(**options: Any) -> Recognizer:
        seen: list[bytes] = []

        def classify(batch: Any) -> list[Prediction]:
            """The first crop is the part."""
            seen.extend(row.tobytes() for row in batch)
            three, five = said({3: 1 - doubt, 8: doubt}), said({5: 0.95, 8: 0.05})
            return [three if row.tobytes() == seen[0] else five for row in batch]

        return Recognizer(classify, DIGITS, find=lambda levels: part.scaled(len(levels) / 640), **options)

    assert [answer(outcome) for outcome in recognizer().predict([shaded])] == [digit]
    assert [answer(outcome) for outcome in recognizer().read([shaded])] == [str(digit)]
    # All ink is no 3: the reading of the part stays.
    expecting = recognizer(expect="3")
    assert [answer(outcome) for outcome in expecting.read([shaded])] == ["3"]


@pytest.mark.parametrize(
    ("side", "score", "is_digit", "predicted", "read"),
    [
        (128, 0.06, 0.5, 3, "3"),
        (128, 0.06, 0.2, ("no_digit", None), "no_digit"),
        (128, 0.0, 0.5, ("no_digit", None), "no_digit"),
        (129, 0.06, 0.5, ("no_digit", None), "no_digit"),
    ],
)
def test_recognition_all_ink_of_a_close_crop_decides_where_the_reader_sees_parts_and_no_digit(
    shaded: Any, side: int, score: float, is_digit: float, predicted: Any, read: str
) -> None:
    """The reader finds a part, of this score; `is_digit` is of all ink."""
    crop = cv2.resize(shaded[100:540, 100:540], (side, side), interpolation=cv2.INTER_AREA)
    part = peaks([[0, 0, 40, 40]] if score else [], {8: 1.0}, score)
    seen: list[bytes] = []

    def classify(batch: Any) -> list[Prediction]:
        """The first crop is the part."""
        seen.extend(row.tobytes() for row in batch)
        return [
            said({8: 1.0}, 0.1) if row.tobytes() == seen[0] else said({3: 1.0}, is_digit) for row in batch
        ]

    recognizer = Recognizer(classify, DIGITS, find=lambda _: part)
    assert [answer(outcome) for outcome in recognizer.predict([crop])] == [predicted]
    assert [answer(outcome) for outcome in recognizer.read([crop])] == [read]


def test_to_pixels_range_becomes_black_to_white() -> None:
    task = TaskCard("centred", DIGITS.labels, CardInput((1, 3), (-1.0, 1.0)))
    assert to_pixels(np.array([-1, 0, 1], np.float32), task).tolist() == [[0, 128, 255]]


def test_read_picture_in_the_model_s_form_has_the_box_of_its_ink(digits: Any) -> None:
    seven = digits.one(7)
    (outcome,) = Recognizer(lambda _: [said({7: 1.0})], DIGITS).read([seven])
    assert isinstance(outcome.result, Reading)
    assert [(digit.digit, digit.box) for digit in outcome.result.digits] == [(7, cv2.boundingRect(seven))]


@pytest.mark.parametrize(("confidence", "digit", "calls"), [(0.5, 1, 1), (0.95, 7, 0)])
def test_predict_doubtful_drawing_has_the_class_of_both_networks(
    pictures: Any, confidence: float, digit: int, calls: int
) -> None:
    def classify(batch: Any) -> list[Prediction]:
        return [said({7: confidence, 1: 1 - confidence})] * len(batch)

    find = Mock(return_value=peaks([[0, 0, 9, 9]], {1: 1.0}, 0.9))
    (outcome,) = Recognizer(classify, DIGITS, find=find).predict([pictures["dark on white"]])
    (alone,) = Recognizer(classify, DIGITS).predict([pictures["dark on white"]])
    assert isinstance(outcome.result, Prediction)
    assert (outcome.result.digit, find.call_count, answer(alone)) == (digit, calls, 7)
    assert outcome.result.confidence == max(outcome.result.probabilities)
    assert outcome.result.is_digit == 0.99


def test_predict_mixed_batch_has_outcome_in_each_place(recognition: Recognizer, pictures: Any) -> None:
    unreadable = FileNotFoundError("gone")
    mixed: list[Any] = [b"no image", *map(to_png, pictures.values()), unreadable, np.zeros((2, 2, 2, 2)), b""]
    outcomes = list(recognition.predict(mixed))
    assert [answer(outcome) for outcome in outcomes] == [
        errors.NotAnImageError,
        3,
        3,
        ("several_digits", 3),
        ("no_digit", None),
        ("no_digit", None),
        FileNotFoundError,
        errors.ImageShapeError,
        errors.NotAnImageError,
    ]
    broken = [each.result for each in outcomes if isinstance(each.result, Exception)]
    assert [getattr(error, "index", None) for error in broken] == [0, None, 7, 8]
    assert all(error.__traceback__ is None for error in broken)
    # The first call is for all drawings; the reader looks at each other picture.
    assert recognition.sizes[0] == 3


def test_predict_array_in_model_form_asks_once(recognition: Recognizer, digits: Any) -> None:
    outcomes = list(recognition.predict(digits.images[:200]))
    assert recognition.sizes[0] == 200
    assert np.mean([answer(outcome) for outcome in outcomes] == digits.labels[:200]) > 0.85


def test_predict_many_pictures_keeps_to_largest_batch(model: LinearModel, digits: Any) -> None:
    numbers = draw_lines(list(digits.images[:4]))
    recognition = Recognizer(model.classify, DIGITS, find=find_components, max_batch=8)
    assert len(list(recognition.predict([numbers] * 5))) == 5
    assert max(recognition.sizes) <= 8


def test_predict_is_lazy(model: LinearModel, digits: Any) -> None:
    recognition = Recognizer(model.classify, DIGITS, max_batch=2)
    next(recognition.predict(list(digits.typical(3, 6))))
    assert recognition.sizes == [2]


def test_recognition_without_is_digit_refuses_by_confidence(digits: Any, pictures: Any) -> None:
    model = LinearModel(digits.images[:1000], digits.labels[:1000])
    recognition = Recognizer(model.classify, DIGITS)
    named = [pictures["in MNIST's form"], pictures["blank"]]
    assert [answer(outcome) for outcome in recognition.predict(named)] == [3, ("no_digit", None)]


def test_recognition_row_without_valid_output_is_error_of_its_picture(
    model: LinearModel, pictures: Any
) -> None:
    """The model divides by the maximum: it has no numbers for black, nor for the first crop of a number."""
    first: list[bytes] = []

    def classify(batch: Any) -> list[Answer]:
        first[:] = first or [batch[0].tobytes()]
        return [
            answer if row.any() and row.tobytes() != first[0] else errors.InvalidOutputError("NaN")
            for row, answer in zip(batch, model.classify(batch), strict=True)
        ]

    recognizer = Recognizer(classify, DIGITS, find=find_components)
    shown = [pictures[name] for name in ("dash", "in MNIST's form", "blank", "dark on white")]
    outcomes = list(recognizer.predict(shown))
    assert [answer(outcome) for outcome in outcomes][1:] == [3, errors.InvalidOutputError, 3]
    assert (outcomes[2].inputs, len(outcomes[3].inputs)) == ((), 1)
    first.clear()
    shown = [pictures[name] for name in ("two lines", "blank", "dark on white")]
    readings = list(recognizer.read(shown))
    assert [answer(outcome) for outcome in readings] == [errors.InvalidOutputError, "no_digit", "3"]
    assert isinstance(readings[0].result, Exception)
    assert readings[0].result.__traceback__ is None


def test_read_digits_have_boxes_in_pixels_of_the_picture(recognition: Recognizer, pictures: Any) -> None:
    (outcome,) = recognition.read([pictures["two lines"]])
    assert isinstance(outcome.result, Reading)
    assert [line.text for line in outcome.result.lines] == ["17", "4"]
    for digit, (row, column) in zip(outcome.result.digits, [(0, 0), (0, 1), (1, 0)], strict=True):
        left, top, width, height = digit.box
        assert 40 + 80 * column <= left < left + width <= 120 + 80 * column
        assert 40 + 80 * row <= top < top + height <= 120 + 80 * row


def test_read_many_pictures_share_a_call(recognition: Recognizer, pictures: Any) -> None:
    two = [pictures["two lines"], pictures["dark on white"]]
    assert [answer(each) for each in recognition.read(two * 2)] == ["17\n4", "3"] * 2
    assert len(recognition.sizes) == 1


@pytest.mark.parametrize(("turned", "count", "probability", "orientation"), [
    (0, 2, 0.95, None), (1, 2, 0.95, 90), (2, 2, 0.95, 180), (3, 2, 0.95, 270),
    (1, 1, 0.95, None), (1, 2, 0.3, None),
])  # fmt: skip
def test_read_picture_turned_has_orientation_of_a_sure_number(
    turned: int, count: int, probability: float, orientation: int | None
) -> None:
    """The reader sees so many digits where the dark corner is at the top left, else only a sign."""
    upright = np.full((480, 640), 250, np.uint8)
    upright[:100, :100] = 20
    boxes = [[10, 10, 40, 50], [60, 10, 40, 50]]

    def look(levels: NDArray[np.uint8]) -> Peaks:
        if levels[0, 0] < 100:
            return peaks(boxes[:count], spread(3, probability, 11))
        return peaks(boxes[:1], spread(10, probability, 11))

    def classify(batch: Any) -> list[Prediction]:
        return [replace(said(spread(3, probability)), confidence=0.5)] * len(batch)

    find = Mock(side_effect=look)
    (outcome,) = Recognizer(classify, DIGITS, find=find).read([np.rot90(upright, turned)])
    assert isinstance(outcome.result, Reading)
    assert outcome.result.orientation == orientation
    assert outcome.result.refusal == ("no_digit" if turned else None)
    assert find.call_count == (4 if turned else 1)


@pytest.mark.parametrize(("share", "looks"), [(0.86, 4), (0.92, 1)])
def test_read_upright_number_of_doubtful_confidence_is_looked_at_turned_and_stays_upright(
    share: float, looks: int
) -> None:
    """The reader sees the same number whichever way the page is turned; confidences are .76 and .86."""

    def look(levels: NDArray[np.uint8]) -> Peaks:
        boxes = [[10, 10, 40, 50], [60, 10, 40, 50]]
        return peaks(boxes, spread(3, share, 11)).scaled(max(levels.shape) / 640)

    def classify(batch: Any) -> list[Prediction]:
        return [replace(said(dict.fromkeys(range(10), 0.1)), is_digit=0.99)] * len(batch)

    find = Mock(side_effect=look)
    (outcome,) = Recognizer(classify, DIGITS, find=find).read([np.full((480, 640), 250, np.uint8)])
    assert isinstance(outcome.result, Reading)
    assert (outcome.result.text, outcome.result.orientation) == ("33", None)
    assert (0.7 < outcome.result.confidence < 0.8) == (looks > 1)
    assert find.call_count == looks


@pytest.mark.parametrize(
    ("left_out", "turned", "orientation"), [(2, 0.999, 180), (2, 0.95, None), (0, 0.999, None)]
)
def test_read_less_than_the_reader_sees_has_orientation_of_a_much_surer_number(
    left_out: int, turned: float, orientation: int | None
) -> None:
    """The reader sees two digits upright; else one, and these left out on blank paper."""
    upright = np.full((480, 640), 250, np.uint8)
    upright[:8, :8] = upright[15:55, 25:33] = upright[15:55, 75:83] = 20

    def find(levels: NDArray[np.uint8]) -> Peaks:
        boxes, share = [[10, 10, 40, 50], [60, 10, 40, 50]], turned
        if levels[0, 0] > 100:
            others = [[60, 60, 20, 30], [90, 60, 20, 30]] if len(levels) == 480 else []
            boxes, share = [[590, 420, 40, 50], *others[:left_out]], 0.8
        return peaks(boxes, spread(3, share, 11)).scaled(levels.shape[1] / 640)

    def classify(batch: Any) -> list[Prediction]:
        even = replace(said(dict.fromkeys(range(10), 0.1)), confidence=0.5)
        return [replace(even, is_digit=0.99 if row.any() else 0.01) for row in batch]

    (outcome,) = Recognizer(classify, DIGITS, find=find).read([np.rot90(upright, 2)])
    assert isinstance(outcome.result, Reading)
    assert (outcome.result.text, outcome.result.orientation) == ("3", orientation)


@pytest.mark.parametrize(
    ("expected", "text", "as_sent"),
    [(None, "33", None), ("##", "33", None), ("88", "88", "33"), ("77", "", None)],
)
def test_read_turned_is_the_way_up_that_fits_what_is_expected(
    expected: str | None, text: str, as_sent: str | None
) -> None:
    """The page shows 33 as it is sent, and 88 upside down, both much alike."""
    picture = np.full((480, 640), 250, np.uint8)
    picture[:8, :8] = 20

    def find(levels: NDArray[np.uint8]) -> Peaks:
        boxes = [[10, 10, 40, 50], [60, 10, 40, 50]]
        digit = 3 if levels[0, 0] < 100 else 8
        found = peaks(boxes, spread(digit, 0.9, 11)) if levels.shape[1] > levels.shape[0] else peaks([], {})
        return found.scaled(levels.shape[1] / 640)

    def classify(batch: Any) -> list[Prediction]:
        return [replace(said(dict.fromkeys(range(10), 0.1)), is_digit=0.99)] * len(batch)

    recognizer = Recognizer(classify, DIGITS, find=find, turn="auto", expect=expected)
    (outcome,) = recognizer.read([picture])
    assert isinstance(outcome.result, Reading)
    assert (outcome.result.text, outcome.result.text_as_sent) == (text, as_sent)


def test_predict_letters_are_framed_and_never_read_as_digits(digits: Any, pictures: Any) -> None:
    letters = replace(DIGITS, name="letters", labels=tuple("ABCDEFGHIJ"))
    model = LinearModel(digits.images[:1000], digits.labels[:1000], with_is_digit=True, task=letters)
    recognition = Recognizer(model.classify, letters)
    results = [outcome.result for outcome in recognition.predict(list(pictures.values()))]
    described = [(each.label, each.refusal) for each in results if isinstance(each, Prediction)]
    assert described[:2] == [("D", None)] * 2
    # No threshold, and no search for digits: only the picture without ink is refused.
    assert [refusal for _, refusal in described] == [None, None, None, "no_digit", None]
    with pytest.raises(errors.ReadingNotSupportedError):
        next(recognition.read([pictures["dark on white"]]))


@pytest.fixture(scope="module")
def photos() -> LinearModel:
    levels = np.array([[20], [230]], np.uint8).repeat(72, axis=1).reshape(2, 4, 6, 3)
    return LinearModel(levels, np.array([0, 1], np.uint8), task=PHOTOS)


def test_predict_floats_in_model_form_reach_model_unchanged(photos: LinearModel) -> None:
    batch = np.full((2, *PHOTOS.shape), 0.7, np.float32)
    outcomes = list(Recognizer(photos.classify, PHOTOS).predict(batch))
    assert all(np.array_equal(outcome.inputs[0], batch[0]) for outcome in outcomes)


def test_predict_large_pictures_are_grouped_by_size() -> None:
    large = replace(PHOTOS, input=replace(PHOTOS.input, shape=(512, 1024, 3)))
    sizes = []

    def classify(batch: Any) -> Sequence[Prediction]:
        sizes.append(len(batch))
        return [Prediction(0, 1.0, (1.0, 0.0), large.labels, 1)] * len(batch)

    list(Recognizer(classify, large).predict([np.zeros((5, 6, 3), np.uint8)] * 7))
    assert sizes == [5, 2]


@pytest.mark.parametrize("kind", ["resize", "none"])
def test_predict_by_another_card_prepares_again_with_an_error_where_it_cannot(
    kind: Any, photos: LinearModel
) -> None:
    """Another version answers the second group: its pictures, whole or as arrays, are asked about again."""
    card = replace(PHOTOS, input=CardInput((8, 6, 3), (0.0, 1.0)), prepare=replace(PHOTOS.prepare, kind=kind))
    asked: list[tuple[int, ...]] = []

    def classify(batch: Any) -> Any:
        asked.append(batch.shape)
        if batch.shape[1:] != card.shape:
            return card
        return [Prediction(int(row.mean() > 128), 1.0, (0.0, 1.0), card.labels, 2) for row in batch]

    light = np.full((8, 6, 3), 250, np.uint8)
    shown = [b"no picture", np.full((8, 5, 3), 250, np.uint8), light, light // 10]
    recognizer = Recognizer(classify, PHOTOS, max_batch=3)
    outcomes = list(recognizer.predict(shown))
    results = [getattr(each.result, "label", type(each.result)) for each in outcomes]
    second = "light" if kind == "resize" else errors.ImageShapeError
    assert results == [errors.NotAnImageError, second, "light", "dark"]
    assert {each.inputs[0].shape for each in outcomes if each.inputs} == {card.shape}
    assert asked == [(2, 4, 6, 3), (2 if kind == "resize" else 1, 8, 6, 3), (1, 8, 6, 3)]
    floats = np.full((4, *PHOTOS.shape), 0.9, np.float32)
    again = [outcome.result for outcome in Recognizer(classify, PHOTOS, max_batch=3).predict(floats)]
    assert [getattr(each, "label", type(each)) for each in again] == [second] * 4


def test_predict_below_the_cards_confidence_is_unsure() -> None:
    task = replace(PHOTOS, refuse_below=0.75)

    def classify(batch: Any) -> list[Prediction]:
        shares = [float(row.mean()) / 255 for row in batch]
        return [Prediction(1, share, (1 - share, share), task.labels, 1) for share in shares]

    greys = [np.full((4, 6, 3), grey, np.uint8) for grey in (255, 128)]
    results: list[Any] = [outcome.result for outcome in Recognizer(classify, task).predict(greys)]
    found = [(each.label, each.refusal, each.index) for each in results]
    assert found == [("light", None, 1), (None, "unsure", 1)]


def test_read_below_the_least_confidence_is_unsure_and_has_candidates(
    model: LinearModel, pictures: Any
) -> None:
    def read(**options: Any) -> Reading:
        recognizer = Recognizer(model.classify, DIGITS, find=find_components, **options)
        (outcome,) = recognizer.read([pictures["two lines"]])
        assert isinstance(outcome.result, Reading)
        assert len(outcome.inputs) == len(outcome.result.digits)
        return outcome.result

    sure = read()
    unsure = read(min_confidence=sure.confidence + 0.001)
    assert (unsure.text, unsure.lines, unsure.refusal) == ("", (), "unsure")
    assert (unsure.confidence, unsure.candidates) == (sure.confidence, sure.candidates)
    assert read(min_confidence=sure.confidence) == sure


def test_predict_below_the_least_certainty_is_unsure(model: LinearModel, pictures: Any) -> None:
    def predict(least: float) -> Prediction:
        recognizer = Recognizer(model.classify, DIGITS, find=find_components, min_confidence=least)
        (outcome,) = recognizer.predict([pictures["dark on white"]])
        assert isinstance(outcome.result, Prediction)
        return outcome.result

    sure = predict(0)
    assert sure.is_digit is not None
    assert sure.certainty == sure.confidence * sure.is_digit
    assert predict(sure.certainty) == sure
    unsure = predict(sure.certainty + 1e-6)
    assert (unsure.label, unsure.refusal, unsure.confidence) == (None, "unsure", sure.confidence)
