"""Preparation of pictures for a model, as its task card says."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import ExifTags, Image

from digit_core import images
from digit_core.artifact.task_card import DIGITS, CardInput, CardPreparation, TaskCard
from digit_core.errors import ImageShapeError
from tests import decompression_bombs
from tests.conftest import Digits
from tests.core.images.pictures import Pixels

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
FITS = ("crop", "pad", "stretch")

PICTURES = arrays.arrays(
    np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3, 4]))
)


def task(*shape: int, **fields: Any) -> TaskCard:
    return TaskCard("colors", ("a", "b"), CardInput(shape, (0.0, 1.0)), CardPreparation(**fields))


def stripes(height: int, width: int) -> Pixels:
    """Return three columns, red, green and blue: uint8 [height, 3 · width, 3]."""
    row = np.repeat(np.array([RED, GREEN, BLUE], np.uint8), width, axis=0)
    return np.tile(row, (height, 1, 1))


def random_pixels(*shape: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def encode(pixels: Pixels, form: str = "JPEG", **options: Any) -> bytes:
    return decompression_bombs.encode(Image.fromarray(pixels), form, **options)


def gradient(height: int, width: int) -> Pixels:
    """Return grey that rises from left to right and from top to bottom: uint8 [h, w]."""
    column, row = np.linspace(0, 127, width), np.linspace(0, 127, height)[:, None]
    return np.asarray(np.rint(row + column), np.uint8)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(640, 640), (700, 700), (500, 4000), (3000, 300)], ids=str)
def test_decode_for_task_jpeg_keeps_the_resolution_of_the_model(size: tuple[int, int], fit: str) -> None:
    pixels, model = gradient(*size), task(300, 260, fit=fit)
    files = encode(pixels, quality=98), encode(pixels, "PNG")
    from_jpeg, from_png = (images.prepare(images.decode_for_task(file, model), model) for file in files)
    assert np.abs(from_jpeg.astype(int) - from_png).max() <= 4


def test_decode_for_task_large_jpeg_is_decoded_downscaled_above_the_model() -> None:
    data = encode(gradient(1600, 2400))
    assert images.decode_for_task(data, task(96, 64)).shape == (200, 300)
    # Bilinear interpolation picks pixels of the whole picture.
    assert images.decode_for_task(data, task(96, 64, interpolation="bilinear")).shape == (1600, 2400)


@pytest.mark.parametrize("size", [(1024, 1024), (1500, 2048)], ids=str)
def test_decode_for_task_jpeg_of_exact_shape_is_accepted_without_preparation(size: tuple[int, int]) -> None:
    model = task(*size, kind="none")
    assert images.prepare(images.decode_for_task(encode(gradient(*size)), model), model).shape == size


@settings(max_examples=40)
@given(
    PICTURES,
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([(), (1,), (3,)]),
    st.sampled_from(FITS),
)
def test_prepare_any_picture_has_shape_of_task(
    picture: Pixels, size: tuple[int, int], channels: tuple[int, ...], fit: str
) -> None:
    prepared = images.prepare(picture, task(*size, *channels, fit=fit))
    assert prepared.shape == (*size, *channels)
    assert prepared.dtype == np.uint8
    assert prepared.flags.c_contiguous


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)], ids=str)
@pytest.mark.parametrize("fit", FITS)
def test_prepare_picture_of_extreme_ratio_keeps_its_color(fit: str, size: tuple[int, int]) -> None:
    prepared = images.prepare(np.full((*size, 3), 200, np.uint8), task(9, 7, 3, fit=fit))
    assert set(np.unique(prepared)) <= ({200} if fit != "pad" else {0, 200})
    assert 200 in prepared


@pytest.mark.parametrize("fields", [{"fit": fit} for fit in FITS] + [{"kind": "none"}], ids=str)
@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 1), (9, 7, 3)], ids=str)
def test_prepare_picture_of_equal_shape_returns_its_pixels(
    shape: tuple[int, ...], fields: dict[str, str]
) -> None:
    picture = random_pixels(*shape)
    assert np.array_equal(images.prepare(picture, task(*shape, **fields)), picture)


def test_prepare_crop_to_other_ratio_keeps_whole_height_or_width() -> None:
    picture = random_pixels(20, 20, 3)
    assert np.array_equal(images.prepare(picture, task(20, 10, 3, fit="crop")), picture[:, 5:15])
    assert np.array_equal(images.prepare(picture, task(10, 20, 3, fit="crop")), picture[5:15])


def test_prepare_pad_adds_black_around_centre() -> None:
    picture = np.full((10, 20), 255, np.uint8)
    landscape = images.prepare(picture, task(20, 20, fit="pad"))
    assert (landscape[5:15] == 255).all()
    assert not landscape[:5].any()
    assert not landscape[15:].any()
    portrait = images.prepare(picture.T, task(10, 10, fit="pad"))
    assert [column.all() for column in portrait.T] == [2 <= column < 7 for column in range(10)]


def test_prepare_stretch_keeps_everything() -> None:
    assert np.array_equal(images.prepare(stripes(30, 40), task(5, 6, 3, fit="stretch")), stripes(5, 2))


def test_prepare_down_averages_areas() -> None:
    picture = random_pixels(24, 32, 3)
    areas = picture.reshape(6, 4, 8, 4, 3).mean(axis=(1, 3))
    prepared = images.prepare(picture, task(6, 8, 3))
    assert np.abs(prepared - areas).max() <= 0.51


def test_prepare_up_interpolates_linearly() -> None:
    picture = np.tile(np.array([0, 100, 200], np.uint8), (3, 1))
    row = images.prepare(picture, task(12, 12))[6].astype(int)
    assert (row[0], row[-1]) == (0, 200)
    assert set(np.diff(row[2:-2])) == {25}


def test_prepare_grey_task_takes_luminance_of_colors() -> None:
    assert images.prepare(stripes(1, 1), task(1, 3)).tolist() == [[76, 150, 29]]


def test_prepare_rgb_task_repeats_grey() -> None:
    grey = random_pixels(9, 7)
    assert np.array_equal(images.prepare(grey, task(9, 7, 3)), np.repeat(grey[:, :, None], 3, axis=2))


@pytest.mark.parametrize(
    ("alpha", "expected"), [(255, (0, 10, 200)), (0, (255, 255, 255)), (128, (127, 132, 227))]
)
def test_prepare_alpha_is_laid_on_white(alpha: int, expected: tuple[int, int, int]) -> None:
    picture = np.full((4, 4, 4), (0, 10, 200, alpha), np.uint8)
    assert images.prepare(picture, task(1, 1, 3)).tolist() == [[list(expected)]]
    on_white = np.full((4, 4, 3), expected, np.uint8)
    assert np.array_equal(images.prepare(picture, task(4, 4)), images.prepare(on_white, task(4, 4)))


def test_prepare_none_refuses_other_size() -> None:
    with pytest.raises(ImageShapeError) as raised:
        images.prepare(random_pixels(9, 8, 3), task(9, 7, 3, kind="none"))
    assert str(raised.value) == "the model takes pictures of 7×9 pixels, not of 8×9"


@pytest.mark.parametrize("labels", [DIGITS.labels, tuple("abc")], ids=["digits", "letters"])
def test_prepare_digits_frames_what_is_written(labels: tuple[str, ...], page: Pixels) -> None:
    card = replace(DIGITS, labels=labels)
    assert np.array_equal(images.prepare(page, card), images.normalise(page))
    with pytest.raises(images.NoInkError):
        images.prepare(np.zeros((50, 50), np.uint8), card)


@pytest.mark.parametrize(
    ("size", "inner"),
    [((64, 100), (40, 64)), ((63, 127), (31, 64)), ((97, 40), (64, 26)), ((1, 640), (1, 64))],
)
def test_prepare_pad_keeps_as_many_rows_as_keras(size: tuple[int, int], inner: tuple[int, int]) -> None:
    lit = images.prepare(np.full(size, 255, np.uint8), task(64, 64, fit="pad")) > 0
    assert (int(lit.any(axis=1).sum()), int(lit.any(axis=0).sum())) == inner


def test_prepare_bilinear_takes_the_nearest_pixels() -> None:
    picture = np.zeros((4, 8, 3), np.uint8)
    picture[:, 3::8] = picture[:, 4::8] = 255
    assert images.prepare(picture, task(4, 1, 3, interpolation="bilinear")).min() == 255
    assert images.prepare(picture, task(4, 1, 3)).max() < 70


def test_prepare_ignores_alpha_and_exif_if_the_card_says_so() -> None:
    picture = np.full((4, 4, 4), (0, 10, 200, 7), np.uint8)
    assert images.prepare(picture, task(1, 1, 3, alpha="ignore")).tolist() == [[[0, 10, 200]]]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned = encode(np.zeros((20, 30, 3), np.uint8), exif=exif)
    assert images.decode_for_task(turned, task(20, 20)).shape == (30, 20, 3)
    assert images.decode_for_task(turned, task(20, 20, exif=False)).shape == (20, 30, 3)


def test_prepare_rgba_task_keeps_alpha_and_adds_an_opaque_one() -> None:
    picture = random_pixels(9, 7, 4)
    assert np.array_equal(images.prepare(picture, task(9, 7, 4)), picture)
    for opaque in (picture[:, :, :3], picture[:, :, 0]):
        prepared = images.prepare(opaque, task(9, 7, 4))
        assert (prepared[:, :, 3] == 255).all()
        assert np.array_equal(prepared[:, :, 0], picture[:, :, 0])


def test_prepare_box_is_its_part_alone() -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[10:30, 20:50] = (1, 2, 3)
    assert (images.prepare(picture, task(4, 6, 3), (20, 10, 30, 20)) == (1, 2, 3)).all()
    assert (images.prepare(picture, task(4, 6, 3)) == (1, 2, 3)).all(axis=2).mean() < 0.6


def test_prepare_box_of_a_digit_leaves_out_its_neighbours(digits: Digits) -> None:
    page = np.full((100, 120), 255, np.uint8)
    for left, digit in ((20, 3), (70, 8)):
        page[30:58, left : left + 28] -= digits.one(digit)
    prepared = images.prepare(page, DIGITS, (20, 30, 28, 28))
    assert np.corrcoef(prepared.ravel(), digits.one(3).ravel())[0, 1] > 0.8
    with pytest.raises(images.NoInkError):
        images.prepare(page, DIGITS, (50, 70, 15, 15))
