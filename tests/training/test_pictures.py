"""Labelled pictures: a folder per class, `.npz` and IDX files."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from digit_core import images
from digit_core.artifact.task_card import DIGITS, CardInput, CardPreparation, TaskCard
from digit_training import pictures
from digit_training.errors import CardError, DataError
from tests.conftest import Digits
from tests.training.conftest import COLORS, COLORS_TOML

GREY = TaskCard("grey", tuple("abcdefghij"), CardInput((28, 28), (0.0, 1.0)))


def test_load_folder_prepares_each_picture_as_in_serving(colors_folder: Path, tmp_path: Path) -> None:
    loaded = pictures.load(colors_folder, COLORS)
    assert loaded.examples.labels.tolist() == [label for label in range(4) for _ in range(5)]
    assert loaded.names[:6] == [*(f"red/{number}.jpg" for number in range(5)), "green/0.jpg"]
    for name, image in zip(loaded.names, loaded.examples.images, strict=True):
        data = (colors_folder / name).read_bytes()
        assert np.array_equal(image, images.prepare(images.decode_for_task(data, COLORS), COLORS))
    checksum = loaded.description.pop("test_checksum")
    counts = {"test": 20, "unreadable": 0, "refused": 0}
    assert loaded.description == {"source": str(colors_folder), **counts}
    moved = colors_folder.rename(tmp_path / "moved")
    small = replace(COLORS, input=CardInput((8, 8, 3), COLORS.range))
    assert pictures.load(moved, small).description["test_checksum"] == checksum
    (moved / "red" / "0.jpg").rename(moved / "green" / "9.jpg")
    assert pictures.load(moved, small).description["test_checksum"] != checksum


def test_prepare_folder_prepares_as_the_card_says(colors_folder: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.toml"
    card.write_text(f"{COLORS_TOML}shape = [64, 48, 3]\n[prepare]\ninterpolation = 'bilinear'\n")
    prepared, labels = pictures.prepare_folder(colors_folder, card)
    bilinear = replace(COLORS, prepare=CardPreparation(interpolation="bilinear"))
    expected = pictures.load(colors_folder, bilinear).examples
    assert np.array_equal(prepared, expected.images)
    assert np.array_equal(labels, expected.labels)
    card.write_text(COLORS_TOML)
    with pytest.raises(CardError, match=r"card\.toml: \[input\] lacks 'shape'"):
        pictures.prepare_folder(colors_folder, card)


def test_load_folder_leaves_out_unreadable_and_hidden_files(colors_folder: Path) -> None:
    (colors_folder / "red" / "Thumbs.db").write_bytes(b"no picture")
    (colors_folder / "red" / "nested").mkdir()
    (colors_folder / "red" / "0.jpg").rename(colors_folder / "red" / "nested" / "0.jpg")
    (colors_folder / "red" / ".DS_Store").touch()
    (colors_folder / ".cache").mkdir()
    loaded = pictures.load(colors_folder, COLORS)
    assert len(loaded) == 20
    assert "red/nested/0.jpg" in loaded.names
    assert [name.partition(": ")[0] for name in loaded.unreadable] == ["red/Thumbs.db"]
    assert loaded.description["unreadable"] == 1


def test_load_folder_of_other_labels_raises_data_error(colors_folder: Path) -> None:
    (colors_folder / "red").rename(colors_folder / "Red")
    with pytest.raises(DataError, match="validation has no folder 'red'; it needs one for each label"):
        pictures.load(colors_folder, COLORS)
    with pytest.raises(DataError, match="validation has the folder 'Red', which is no label of the card"):
        pictures.load(colors_folder, replace(COLORS, labels=("green", "blue", "grey")))


def test_load_folder_without_readable_picture_raises_data_error(colors_folder: Path) -> None:
    def load_without(message: str) -> None:
        with pytest.raises(DataError, match=message):
            pictures.load(colors_folder, COLORS)

    for label in ("grey", "blue"):  # the last one, and one before it
        for picture in (colors_folder / label).iterdir():
            picture.write_bytes(b"no picture")
        load_without(f"validation holds no picture of the label '{label}' that can be evaluated")
    for picture in colors_folder.rglob("*.jpg"):
        picture.write_bytes(b"no picture")
    load_without(r"holds no picture that can be evaluated; the first: red/0\.jpg: ")
    for picture in colors_folder.rglob("*.jpg"):
        picture.unlink()
    load_without("holds no picture that can be evaluated$")


@pytest.mark.parametrize(
    ("keys", "encode"),
    [
        (("x_test", "y_test"), lambda labels: labels[:, None].astype(np.int64)),
        (("images", "labels"), lambda labels: np.array(list("abcdefghij"))[labels]),
    ],
    ids=["column", "names"],
)
def test_load_npz_reads_indices_and_names(
    digits: Digits, tmp_path: Path, keys: tuple[str, str], encode: Callable[[NDArray[Any]], NDArray[Any]]
) -> None:
    arrays: dict[str, Any] = dict(zip(keys, (digits.images[:9], encode(digits.labels[:9])), strict=True))
    np.savez(tmp_path / "test.npz", **arrays)
    loaded = pictures.load(tmp_path / "test.npz", GREY)
    assert np.array_equal(loaded.examples.images, digits.images[:9])
    assert np.array_equal(loaded.examples.labels, digits.labels[:9])
    assert loaded.names[8] == "index 8"
    small = replace(GREY, input=replace(GREY.input, shape=(20, 18, 3)))
    scaled = pictures.load(tmp_path / "test.npz", small).examples.images
    assert np.array_equal(scaled, [images.prepare(image, small) for image in digits.images[:9]])


def test_load_idx_reads_the_test_set(idx_folder: Path, digits: Digits) -> None:
    for path in idx_folder.glob("train-*"):
        path.unlink()
    loaded = pictures.load(idx_folder, GREY)
    assert np.array_equal(loaded.examples.images, digits.images[200:300])
    assert np.array_equal(loaded.examples.labels, digits.labels[200:300])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": [1]}, "has neither x_test and y_test nor images and labels"),
        ({"images": np.zeros((2, 784)), "labels": [0, 1]}, r"images has shape \[2, 784\], not \[n, height"),
        ({"images": np.zeros((2, 8, 8)), "labels": [0]}, "labels holds 1 labels for the 2 images of"),
        ({"images": np.zeros((2, 8, 8)), "labels": [0, 4]}, "labels ranges from 0 to 4, not from 0 to 3"),
        ({"images": np.zeros((2, 8, 8)), "labels": [0.0, 1.0]}, "type float64, not integer"),
        ({"images": np.zeros((2, 8, 8)), "labels": np.eye(2)}, r"labels has shape \[2, 2\], not \[n\]"),
        ({"images": np.zeros((2, 8, 8)), "labels": ["red", "pink"]}, "'pink', which is not on the card"),
    ],
)
def test_load_npz_of_other_content_raises_data_error(
    tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=r"test\.npz does not exist"):
        pictures.load(tmp_path / "test.npz", COLORS)
    np.savez(tmp_path / "test.npz", **arrays)
    with pytest.raises(DataError, match=message):
        pictures.load(tmp_path / "test.npz", COLORS)


def test_load_of_kind_digits_counts_blank_pictures_as_refused(digits: Digits, tmp_path: Path) -> None:
    x = np.stack([np.zeros((28, 28), np.uint8), digits.one(7)])
    np.savez(tmp_path / "test.npz", x_test=x, y_test=[0, 7])
    loaded = pictures.load(tmp_path / "test.npz", replace(DIGITS, labels=tuple("abcdefghij")))
    assert (loaded.names, loaded.examples.labels.tolist(), loaded.unreadable) == (["index 1"], [7], [])
    assert np.array_equal(loaded.examples.images, x[1:])
    assert [name.partition(": ")[0] for name in loaded.refused] == ["index 0"]
    assert (loaded.description["test"], loaded.description["refused"]) == (1, 1)


MULTI_LABEL = replace(COLORS, labels=("red", "blue"), threshold=(0.5, 0.5))


def write_table(folder: Path, *lines: str) -> Path:
    (folder / "test.csv").write_text("".join(f"{line}\n" for line in lines))
    return folder / "test.csv"


def test_load_csv_of_multi_label_task_reads_flags_by_column(colors_folder: Path) -> None:
    table = write_table(
        colors_folder, "file,blue,red", "red/0.jpg,0,1", "blue/0.jpg,1,0", "grey/0.jpg,1,1", "lost.jpg,1,1"
    )
    loaded = pictures.load(table, MULTI_LABEL)
    assert loaded.names == ["red/0.jpg", "blue/0.jpg", "grey/0.jpg"]
    assert loaded.examples.labels.tolist() == [[1, 0], [0, 1], [1, 1]]
    assert [name.partition(": ")[0] for name in loaded.unreadable] == ["lost.jpg"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "has the columns , not file, red, blue"),
        (["file,red,blue", "red/0.jpg,1,maybe"], "line 2: a file and then 0 or 1 for each label"),
        (["file,red,blue", "red/0.jpg,1"], "line 2: a file and then 0 or 1 for each label"),
        (["file,red,blue", "red/0.jpg,1,0"], "holds no picture of the label 'blue'"),
    ],
)
def test_load_csv_of_other_content_raises_data_error(
    colors_folder: Path, lines: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        pictures.load(write_table(colors_folder, *lines), MULTI_LABEL)


def test_load_npz_of_multi_label_task_reads_flags_and_nothing_else(
    colors_folder: Path, tmp_path: Path
) -> None:
    images = np.zeros((2, 9, 9), np.uint8)
    np.savez(tmp_path / "flags.npz", x_test=images, y_test=np.array([[1, 0], [0, 1]], bool))
    assert pictures.load(tmp_path / "flags.npz", MULTI_LABEL).examples.labels.tolist() == [[1, 0], [0, 1]]
    np.savez(tmp_path / "indices.npz", x_test=images, y_test=[0, 1])
    with pytest.raises(DataError, match=r"y_test is not 0 or 1 in the shape \[n, 2\]"):
        pictures.load(tmp_path / "indices.npz", MULTI_LABEL)
    with pytest.raises(DataError, match="whose test pictures are a CSV file"):
        pictures.load(colors_folder, MULTI_LABEL)
    with pytest.raises(DataError, match="whose test pictures are a folder for each label"):
        pictures.load(write_table(colors_folder, "file,red"), COLORS)


def test_load_finds_folders_whose_names_decompose_accents(tmp_path: Path) -> None:
    """macOS writes é as an e and an accent."""
    for name in ("cafe\u0301", "bar"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "1.png")
    task = TaskCard("places", ("bar", "caf\u00e9"), CardInput((8, 8, 3), (0.0, 1.0)))
    assert pictures.load(tmp_path, task).examples.labels.tolist() == [0, 1]
