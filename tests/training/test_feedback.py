"""Feedback reader, on stores that serving writes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from digit_core.artifact.task_card import DIGITS, NO_CLASS, CardInput, TaskCard
from digit_core.feedback.store import FeedbackStore
from digit_training import feedback
from digit_training.data import NO_DIGIT
from digit_training.errors import DataError
from digit_training.evaluation import Accuracy
from tests.conftest import Digits
from tests.records import make_record

Save = Callable[..., None]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'feedback.db'}"


@pytest.fixture
def save(url: str) -> Save:
    """Function that saves records in the store."""
    store = FeedbackStore(url)
    return lambda *records: store.save(records)


def test_load_returns_labelled_inputs_oldest_first(save: Save, url: str, digits: Digits) -> None:
    images, labels = digits.images, digits.labels
    records = [
        make_record(number, images[number], str(labels[number]), held_out=number % 3 == 0)
        for number in range(9)
    ]
    save(*reversed(records))
    save(make_record(10, images[10], None), make_record(11, images[11], "3", model="fashion"))
    save(make_record(12, images[12], NO_CLASS))
    loaded = feedback.load(url, DIGITS)
    assert np.array_equal(loaded.held_out.images, images[[0, 3, 6]])
    assert np.array_equal(loaded.held_out.labels, labels[[0, 3, 6]])
    assert np.array_equal(loaded.train.images, images[[1, 2, 4, 5, 7, 8, 12]])
    assert loaded.train.labels.tolist() == [*labels[[1, 2, 4, 5, 7, 8]], NO_DIGIT]
    assert len(loaded) == 10
    assert len(loaded.without_negatives()) == 9


def test_load_returns_a_picture_once_with_the_label_of_two_thirds_of_its_callers(
    save: Save, url: str, digits: Digits
) -> None:
    first, second, third, fourth = digits.images[:4]
    save(*(make_record(number, first, label) for number, label in enumerate("127")))
    votes = {"ann": "9", "bob": "9", "cid": "9", "dan": "9", "eve": "9", "mallory": "1"}
    save(*(make_record(9, second, vote, caller=name, held_out=name == "bob") for name, vote in votes.items()))
    save(make_record(5, third, "1", caller="ann"), make_record(6, third, "2", caller="eve"))
    save(make_record(7, fourth, "1", caller="ann"), make_record(7, fourth, "2", caller="eve", hand_label="5"))
    loaded = feedback.load(url, DIGITS)
    assert (loaded.train.labels.tolist(), loaded.held_out.labels.tolist()) == ([7, 5], [9])
    assert (loaded.agreement.count, loaded.conflicts) == (3, 1)
    usable = loaded.without_tested(np.stack((first, second)))
    assert (len(usable.train), len(usable.held_out)) == (1, 1)


def test_load_prepares_pictures_by_the_card_of_any_size(save: Save, url: str) -> None:
    photo = np.full((40, 60, 3), 255, np.uint8)
    photo[10:30, 20:40] = (200, 100, 50)
    save(make_record(0, photo, "a", model="tiles"))
    save(make_record(1, photo, "b", model="tiles", box=(20, 10, 20, 20)))
    for shape in ((6, 5, 1), (20, 20, 3)):
        loaded = feedback.load(url, TaskCard("tiles", ("a", "b"), CardInput(shape, (0.0, 1.0))))
        assert loaded.train.images.shape == (2, *shape)
        assert loaded.train.labels.tolist() == [0, 1]
        assert loaded.train.images[0].max() == 255
        assert len(np.unique(loaded.train.images[1].reshape(-1, shape[2]), axis=0)) == 1


def test_load_leaves_out_and_counts_what_the_card_cannot_prepare(
    save: Save, url: str, digits: Digits
) -> None:
    save(make_record(0, digits.images[0], "seven"), make_record(1, digits.images[1], "7"))
    save(make_record(2, digits.images[2], "7", picture=b"no PNG"))
    save(make_record(3, np.zeros((50, 50), np.uint8), "7"))
    loaded = feedback.load(url, DIGITS)
    assert (loaded.train.labels.tolist(), loaded.unusable) == ([7], 3)


def test_describe_counts_by_label(save: Save, url: str, digits: Digits) -> None:
    save(make_record(0, digits.images[0], "7"), make_record(1, digits.images[1], NO_CLASS))
    save(*(make_record(number, digits.images[number], "7", held_out=True) for number in (2, 3)))
    assert feedback.load(url, DIGITS).describe(10, np.array([True, False])) == {
        "source": url,
        "weight": 10,
        "agreeing": 0,
        "conflicting": 0,
        "train": {"inputs": 2, "by_label": {"7": 1, "no digit": 1}},
        "held_out": {"inputs": 2, "right": 1, "by_label": {"7": 2}, "right_by_label": {"7": 1}},
    }


def test_load_counts_votes_that_agree_by_caller(save: Save, url: str, digits: Digits) -> None:
    first, second, third = digits.images[:3]
    save(
        make_record(0, first, "2"),
        make_record(2, second, NO_CLASS, caller="alice"),
        make_record(3, first, "2", caller="alice"),
        make_record(4, third, "1", caller="mallory"),
        make_record(5, second, None, caller="mallory"),
    )
    loaded = feedback.load(url, DIGITS)
    assert loaded.agreements == {"": Accuracy(1, 1), "alice": Accuracy(1, 2), "mallory": Accuracy(0, 1)}
    assert loaded.agreement == Accuracy(1, 3)
    rest = feedback.load(url, DIGITS, ["mallory", "alice"])
    assert rest.agreements == {"": Accuracy(1, 1)}
    assert (rest.train.labels.tolist(), len(rest.held_out)) == ([2], 0)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:///missing.db", "missing.db does not exist"),
        ("postgresql://me:secret@host:secret/db", "DATABASE; this one cannot be parsed"),
        ("mysql://me:secret@host/db?password=secret", r"DATABASE, not mysql://me:\*\*\*@host/db"),
        (
            "postgresql://me:secret@127.0.0.1:1/db?password=secret",
            r"postgresql\+psycopg://me:\*\*\*@127.0.0.1:1/db: ",
        ),
    ],
)
def test_load_unusable_url_raises_data_error_without_password(
    url: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        feedback.load(url, DIGITS)
    assert "secret" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_load_file_without_the_table_raises_data_error(tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    file.touch()
    with pytest.raises(DataError, match=r"other\.db has no feedback yet; a gateway"):
        feedback.load(f"sqlite:///{file}", DIGITS)
    file.write_bytes(b"no database, but longer than its header " * 100)
    with pytest.raises(DataError, match=r"other\.db: file is not a database"):
        feedback.load(f"sqlite:///{file}", DIGITS)
