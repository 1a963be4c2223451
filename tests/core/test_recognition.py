"""Recognition: one outcome for each picture, whatever its form and the model's answer."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from digit_core.artifact.task_card import DIGITS, TaskCard
from digit_core.errors import (
    ImageShapeError,
    InvalidOutputError,
    NotAnImageError,
    OverloadedError,
    ReaderMissingError,
    ReadingNotSupportedError,
)
from digit_core.expectations import parse_expectation
from digit_core.images import Peaks, to_png
from digit_core.recognition import Classify, Find, Outcome, Recognition, drive
from digit_core.results import MIN_IS_DIGIT, Answer, Prediction, Reading
from tests.core.component_reader import find_components
from tests.core.drawn_numbers import draw_lines
from tests.core.linear_model import LinearModel

PHOTOS = TaskCard("photos", ("dark", "light"), (4, 6, 3), (-1.0, 1.0), "resize", "stretch")
FORMS: dict[str, Callable[[NDArray[np.uint8]], Any]] = {
    "file": to_png,
    "array": lambda picture: picture,
    "float array": lambda picture: picture / 255,
}


@pytest.fixture(scope="module")
def model(digits: Any) -> LinearModel:
    return LinearModel(digits.images[:1000], digits.labels[:1000], with_is_digit=True)


def missing_reader(page: Any) -> Any:
    raise ReaderMissingError("no reader")


class Recognizer:
    """Recognition, driven by functions of this process. `sizes` has the number of rows of each call."""

    def __init__(
        self,
        classify: Callable[[Any], Sequence[Any]],
        *arguments: Any,
        find: Any = missing_reader,
        **options: Any,
    ) -> None:
        self.classify, self._find = classify, find
        self.sizes: list[int] = []
        self._recognition = Recognition(*arguments, **options)

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


def test_predict_refusal_has_numbers_of_the_model(recognition: Recognizer, pictures: Any) -> None:
    for outcome in recognition.predict([pictures["dash"], pictures["blank"], pictures["two lines"]]):
        refused = outcome.result
        assert isinstance(refused, Prediction)
        assert (refused.label, refused.digit) == (None, None)
        (shown,) = outcome.inputs
        (expected,) = recognition.classify(shown[np.newaxis])
        assert refused.index == expected.index
        assert (*refused.probabilities, refused.confidence) == pytest.approx(
            (*expected.probabilities, expected.confidence), abs=1e-5
        )


@pytest.mark.parametrize(("name", "is_refused"), [("dash", True), ("blank", True), ("two lines", False)])
def test_predict_is_digit_alone_decides_if_there_is_a_digit(
    recognition: Recognizer, pictures: Any, name: str, is_refused: bool
) -> None:
    ((outcome,),) = [[*recognition.predict([pictures[name]])]]
    assert isinstance(outcome.result, Prediction)
    assert outcome.result.is_digit is not None
    assert (outcome.result.refusal == "no_digit") is is_refused is (outcome.result.is_digit < MIN_IS_DIGIT)
    assert (outcome.result.is_digit == 0) is (name == "blank")


def test_predict_answer_of_the_reader_has_its_doubt_and_its_box(
    recognition: Recognizer, pictures: Any
) -> None:
    shade = np.linspace(0, 40, len(pictures["dark on white"])).astype(np.uint8)[:, np.newaxis]
    (outcome,) = recognition.predict([np.maximum(pictures["dark on white"], 40) - shade])
    (expected,) = recognition.classify(np.stack(outcome.inputs))
    assert isinstance(outcome.result, Prediction)
    assert outcome.result.digit == expected.digit == 3
    assert outcome.result.confidence == max(outcome.result.probabilities)
    assert outcome.result.confidence == pytest.approx(expected.confidence, abs=1e-4)
    assert expected.is_digit is not None
    assert outcome.result.is_digit is not None
    assert outcome.result.is_digit != expected.is_digit
    assert expected.box is None
    assert outcome.result.box is not None
    left, top, width, height = outcome.result.box
    assert (outcome.result.to_dict()["box"], width < height) == ([left, top, width, height], True)
    assert 40 <= left < left + width <= 120
    assert 40 <= top < top + height <= 120


@pytest.mark.parametrize(
    ("coarse", "fine", "is_digit", "predicted", "read"),
    [
        ([0.99], [0.99] * 2, 0.95, 3, "33"),
        ([0.3], [0.99] * 2, 0.9, ("several_digits", 2), "33"),
        ([0.3], [0.99] * 2, 0.95, 3, "33"),
        ([0.06], [0.06], 0.95, 3, "3"),
        ([0.06], [0.06], 0.9, ("no_digit", None), "no_digit"),
        ([], [], 0.95, ("no_digit", None), "no_digit"),
    ],
)
def test_recognition_coarse_view_decides_if_it_is_sure_and_all_ink_where_the_reader_sees_parts(
    model: LinearModel,
    digits: Any,
    coarse: list[float],
    fine: list[float],
    is_digit: float,
    predicted: Any,
    read: str,
) -> None:
    """The reader finds digits of these scores in the coarse view and on the page; the model is so sure."""
    shade = np.linspace(0, 40, 640).astype(np.uint8)[:, np.newaxis]
    page = np.maximum(cv2.resize(draw_lines([digits.one(3)]), (640, 640)), 40) - shade
    boxes = np.array([[180, 180, 280, 280], [480, 180, 100, 280]], np.float32)

    def find(levels: NDArray[np.uint8]) -> Peaks:
        found = coarse if len(levels) < 640 else fine
        classes = np.eye(11, dtype=np.float32)[[3] * len(found)]
        peaks = Peaks(np.array(found, np.float32), classes, boxes[: len(found)])
        return peaks.scaled(len(levels) / len(page))

    def classify(batch: Any) -> list[Prediction]:
        return [replace(each, confidence=0.95, is_digit=is_digit) for each in model.classify(batch)]

    recognizer = Recognizer(classify, DIGITS, find=find)
    assert [answer(outcome) for outcome in recognizer.predict([page])] == [predicted]
    assert [answer(outcome) for outcome in recognizer.read([page])] == [read]


@pytest.mark.parametrize(("doubt", "digit"), [(0.2, 5), (0.05, 3)])
def test_recognition_unsure_of_a_part_takes_all_ink_of_which_the_model_is_sure(
    digits: Any, doubt: float, digit: int
) -> None:
    """The reader finds a 3, a part of the picture that the model takes for a 5 as a whole."""
    shade = np.linspace(0, 40, 640).astype(np.uint8)[:, np.newaxis]
    page = np.maximum(cv2.resize(draw_lines([digits.one(3)]), (640, 640)), 40) - shade
    box = np.array([[180, 180, 100, 100]], np.float32)
    classes = np.array([[0, 0, 0, 0.5, 0, 0, 0, 0, 0.5, 0, 0]], np.float32)
    peaks = Peaks(np.array([0.99], np.float32), classes, box)
    seen: list[bytes] = []

    def classify(batch: Any) -> list[Prediction]:
        """The first crop is the part."""
        rows = []
        for row in batch:
            seen.append(row.tobytes())
            shares = {3: 1 - doubt, 8: doubt} if row.tobytes() == seen[0] else {5: 0.95, 8: 0.05}
            probabilities = tuple(shares.get(label, 0.0) for label in range(10))
            label, confidence = next(iter(shares.items()))
            rows.append(Prediction(label, confidence, probabilities, DIGITS.labels, 1, is_digit=0.99))
        return rows

    def find(levels: NDArray[np.uint8]) -> Peaks:
        return peaks.scaled(len(levels) / len(page))

    recognizer = Recognizer(classify, DIGITS, find=find)
    assert [answer(outcome) for outcome in recognizer.predict([page])] == [digit]
    seen.clear()
    assert [answer(outcome) for outcome in recognizer.read([page])] == [str(digit)]
    # All ink is no 3: the reading of the part stays.
    expecting = Recognizer(classify, DIGITS, find=find, expectation=parse_expectation("3"))
    seen.clear()
    assert [answer(outcome) for outcome in expecting.read([page])] == ["3"]


@pytest.mark.parametrize(("confidence", "digit", "calls"), [(0.5, 1, 1), (0.95, 7, 0)])
def test_predict_doubtful_drawing_has_the_class_of_both_networks(
    digits: Any, pictures: Any, confidence: float, digit: int, calls: int
) -> None:
    def classify(batch: Any) -> list[Prediction]:
        probabilities = tuple({7: confidence, 1: 1 - confidence}.get(label, 0.0) for label in range(10))
        return [Prediction(7, confidence, probabilities, DIGITS.labels, 1, is_digit=0.99)] * len(batch)

    asked = []

    def find(levels: NDArray[np.uint8]) -> Peaks:
        asked.append(levels)
        return Peaks(
            np.array([0.9], np.float32),
            np.eye(11, dtype=np.float32)[[1]],
            np.array([[0, 0, 9, 9]], np.float32),
        )

    (outcome,) = Recognizer(classify, DIGITS, find=find).predict([pictures["dark on white"]])
    (alone,) = Recognizer(classify, DIGITS).predict([pictures["dark on white"]])
    assert isinstance(outcome.result, Prediction)
    assert (outcome.result.digit, len(asked), answer(alone)) == (digit, calls, 7)
    assert outcome.result.confidence == max(outcome.result.probabilities)
    assert outcome.result.is_digit == 0.99


def test_predict_mixed_batch_has_outcome_in_each_place(recognition: Recognizer, pictures: Any) -> None:
    unreadable = FileNotFoundError("gone")
    mixed: list[Any] = [b"no image", *map(to_png, pictures.values()), unreadable, np.zeros((2, 2, 2, 2)), b""]
    outcomes = list(recognition.predict(mixed))
    assert [answer(outcome) for outcome in outcomes] == [
        NotAnImageError,
        3,
        3,
        ("several_digits", 3),
        ("no_digit", None),
        ("no_digit", None),
        FileNotFoundError,
        ImageShapeError,
        NotAnImageError,
    ]
    errors = [outcome.result for outcome in outcomes if isinstance(outcome.result, Exception)]
    assert [getattr(error, "index", None) for error in errors] == [0, None, 7, 8]
    assert all(error.__traceback__ is None for error in errors)
    # The first call is for all drawings; the reader looks at each other picture.
    assert recognition.sizes[0] == 3


def test_read_mixed_batch_has_outcome_in_each_place(recognition: Recognizer, pictures: Any) -> None:
    mixed = [b"no image", pictures["two lines"], OSError("gone"), pictures["blank"]]
    outcomes = list(recognition.read(mixed))
    assert [answer(outcome) for outcome in outcomes] == [NotAnImageError, "17\n4", OSError, "no_digit"]
    assert [np.shape(outcome.inputs) for outcome in outcomes] == [(0,), (3, 28, 28), (0,), (0,)]


@pytest.mark.parametrize(("min_is_digit", "expected"), [(0.0, 0), (1.0, 1)])
def test_predict_threshold_decides_on_arrays_and_files(
    model: LinearModel, pictures: Any, min_is_digit: float, expected: int
) -> None:
    recognition = Recognizer(model.classify, DIGITS, min_is_digit)
    forms = [form(pictures["in MNIST's form"]) for form in FORMS.values()]
    results = [outcome.result for outcome in recognition.predict([*forms, pictures["dash"]])]
    assert [bool(result.refusal) for result in results if isinstance(result, Prediction)] == [expected] * 4


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


def test_recognition_error_of_model_ends_iteration(pictures: Any) -> None:
    def classify(batch: Any) -> Sequence[Prediction]:
        raise OverloadedError("busy")

    recognition = Recognizer(classify, DIGITS, find=find_components)
    for method in (recognition.predict, recognition.read):
        with pytest.raises(OverloadedError):
            list(method([pictures["dark on white"]]))


def test_recognition_row_without_valid_output_is_error_of_its_picture(
    model: LinearModel, pictures: Any
) -> None:
    """The model divides by the maximum: it has no numbers for black, nor for the first crop of a number."""
    first: list[bytes] = []

    def classify(batch: Any) -> list[Answer]:
        first[:] = first or [batch[0].tobytes()]
        return [
            answer if row.any() and row.tobytes() != first[0] else InvalidOutputError("NaN")
            for row, answer in zip(batch, model.classify(batch), strict=True)
        ]

    recognizer = Recognizer(classify, DIGITS, find=find_components)
    shown = [pictures[name] for name in ("dash", "in MNIST's form", "blank", "dark on white")]
    outcomes = list(recognizer.predict(shown))
    assert [answer(outcome) for outcome in outcomes][1:] == [3, InvalidOutputError, 3]
    assert (outcomes[2].inputs, len(outcomes[3].inputs)) == ((), 1)
    first.clear()
    shown = [pictures[name] for name in ("two lines", "blank", "dark on white")]
    readings = list(recognizer.read(shown))
    assert [answer(outcome) for outcome in readings] == [InvalidOutputError, "no_digit", "3"]
    assert isinstance(readings[0].result, Exception)
    assert readings[0].result.__traceback__ is None


def test_read_digits_have_boxes_in_pixels_of_the_picture(recognition: Recognizer, pictures: Any) -> None:
    for form in ("file", "array"):
        ((reading,),) = [
            (outcome.result,) for outcome in recognition.read([FORMS[form](pictures["two lines"])])
        ]
        assert isinstance(reading, Reading)
        assert [line.text for line in reading.lines] == ["17", "4"]
        for digit, (row, column) in zip(reading.digits, [(0, 0), (0, 1), (1, 0)], strict=True):
            left, top, width, height = digit.box
            assert 40 + 80 * column <= left < left + width <= 120 + 80 * column
            assert 40 + 80 * row <= top < top + height <= 120 + 80 * row


def test_read_many_pictures_share_a_call(recognition: Recognizer, pictures: Any) -> None:
    texts = [
        answer(each) for each in recognition.read([pictures["two lines"], pictures["dark on white"]] * 2)
    ]
    assert texts == ["17\n4", "3"] * 2
    assert len(recognition.sizes) == 1


@pytest.mark.parametrize(("turned", "count", "probability", "orientation"), [
    (0, 2, 0.95, None), (1, 2, 0.95, 90), (2, 2, 0.95, 180), (3, 2, 0.95, 270),
    (1, 1, 0.95, None), (1, 2, 0.3, None),
])  # fmt: skip
def test_read_picture_turned_has_orientation_of_a_sure_number(
    model: LinearModel, turned: int, count: int, probability: float, orientation: int | None
) -> None:
    """The reader sees so many digits where the dark corner is at the top left, else only a sign."""
    upright = np.full((480, 640), 250, np.uint8)
    upright[:100, :100] = 20
    asked = []

    def find(levels: NDArray[np.uint8]) -> Peaks:
        asked.append(levels.shape)
        is_upright = levels[0, 0] < 100
        scores = np.full(count if is_upright else 1, 0.98, np.float32)
        boxes = np.array([[10, 10, 40, 50], [60, 10, 40, 50]], np.float32)[: len(scores)]
        classes = np.full((len(scores), 11), (1 - probability) / 10, np.float32)
        classes[:, 3 if is_upright else 10] = probability
        return Peaks(scores, classes, boxes)

    def classify(batch: Any) -> list[Prediction]:
        rest = (1 - probability) / 9
        threes = tuple(probability if label == 3 else rest for label in range(10))
        return [
            replace(each, probabilities=threes, confidence=0.5, is_digit=0.99)
            for each in model.classify(batch)
        ]

    (outcome,) = Recognizer(classify, DIGITS, find=find).read([np.rot90(upright, turned)])
    assert isinstance(outcome.result, Reading)
    assert outcome.result.orientation == orientation
    assert outcome.result.refusal == ("no_digit" if turned else None)
    assert len(asked) == (4 if turned else 1)


@pytest.mark.parametrize(("left_out", "orientation"), [(2, 180), (0, None)])
def test_read_less_than_the_reader_sees_has_orientation_of_a_surer_number(
    model: LinearModel, left_out: int, orientation: int | None
) -> None:
    """The reader sees two digits upright; else one, and these left out on blank paper."""
    upright = np.full((480, 640), 250, np.uint8)
    upright[:8, :8] = upright[15:55, 25:33] = upright[15:55, 75:83] = 20

    def find(levels: NDArray[np.uint8]) -> Peaks:
        boxes, share = [[10, 10, 40, 50], [60, 10, 40, 50]], 0.95
        if levels[0, 0] > 100:
            others = [[60, 60, 20, 30], [90, 60, 20, 30]] if len(levels) == 480 else []
            boxes, share = [[590, 420, 40, 50], *others[:left_out]], 0.8
        classes = np.full((len(boxes), 11), (1 - share) / 10, np.float32)
        classes[:, 3] = share
        scores = np.full(len(boxes), 0.98, np.float32)
        return Peaks(scores, classes, np.array(boxes, np.float32)).scaled(levels.shape[1] / 640)

    def classify(batch: Any) -> list[Prediction]:
        return [
            replace(each, probabilities=(0.1,) * 10, confidence=0.5, is_digit=0.99 if row.any() else 0.01)
            for row, each in zip(batch, model.classify(batch), strict=True)
        ]

    (outcome,) = Recognizer(classify, DIGITS, find=find).read([np.rot90(upright, 2)])
    assert isinstance(outcome.result, Reading)
    assert (outcome.result.text, outcome.result.orientation) == ("3", orientation)


def test_predict_letters_are_framed_and_never_read_as_digits(digits: Any, pictures: Any) -> None:
    letters = replace(DIGITS, name="letters", labels=tuple("ABCDEFGHIJ"))
    model = LinearModel(digits.images[:1000], digits.labels[:1000], with_is_digit=True, task=letters)
    recognition = Recognizer(model.classify, letters)
    results = [outcome.result for outcome in recognition.predict(list(pictures.values()))]
    described = [(each.label, each.refusal) for each in results if isinstance(each, Prediction)]
    assert described[:2] == [("D", None)] * 2
    # No threshold, and no search for digits: only the picture without ink is refused.
    assert [refusal for _, refusal in described] == [None, None, None, "no_digit", None]
    with pytest.raises(ReadingNotSupportedError):
        next(recognition.read([pictures["dark on white"]]))


@pytest.fixture(scope="module")
def photos() -> LinearModel:
    levels = np.array([[20], [230]], np.uint8).repeat(72, axis=1).reshape(2, 4, 6, 3)
    return LinearModel(levels, np.array([0, 1], np.uint8), task=PHOTOS)


def test_predict_other_task_prepares_as_its_card_says(photos: LinearModel) -> None:
    recognition = Recognizer(photos.classify, PHOTOS)
    light = np.full((30, 20, 3), 230, np.uint8)
    outcomes = list(recognition.predict([to_png(light), b"no image", light]))
    assert [answer(outcome) for outcome in outcomes] == [None, NotAnImageError, None]
    labels = [outcome.result.label for outcome in outcomes if isinstance(outcome.result, Prediction)]
    assert labels == ["light", "light"]
    assert outcomes[0].inputs[0].shape == PHOTOS.shape


def test_predict_floats_in_model_form_reach_model_unchanged(photos: LinearModel) -> None:
    batch = np.full((2, *PHOTOS.shape), 0.7, np.float32)
    outcomes = list(Recognizer(photos.classify, PHOTOS).predict(batch))
    assert all(np.array_equal(outcome.inputs[0], batch[0]) for outcome in outcomes)


def test_predict_large_pictures_are_grouped_by_size() -> None:
    large = replace(PHOTOS, shape=(512, 1024, 3))
    sizes = []

    def classify(batch: Any) -> Sequence[Prediction]:
        sizes.append(len(batch))
        return [Prediction(0, 1.0, (1.0, 0.0), large.labels, 1)] * len(batch)

    list(Recognizer(classify, large).predict([np.zeros((5, 6, 3), np.uint8)] * 7))
    assert sizes == [5, 2]


def test_predict_below_the_cards_confidence_is_unsure() -> None:
    task = replace(PHOTOS, refuse_below=0.75)

    def classify(batch: Any) -> list[Prediction]:
        shares = [float(row.mean()) / 255 for row in batch]
        return [Prediction(1, share, (1 - share, share), task.labels, 1) for share in shares]

    greys = [np.full((4, 6, 3), grey, np.uint8) for grey in (255, 128)]
    sure, unsure = (outcome.result for outcome in Recognizer(classify, task).predict(greys))
    assert isinstance(sure, Prediction)
    assert isinstance(unsure, Prediction)
    assert (sure.label, sure.refusal) == ("light", None)
    assert (unsure.label, unsure.refusal, unsure.index) == (None, "unsure", 1)


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
