"""."""

import contextlib
import io
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from digit_client import images
from digit_client._exceptions import (
    ImageError,
    ImageTooLargeError,
    NoDigitError,
    NotAnImageError,
    TruncatedImageError,
)
from digit_client.images.normalisation import drop_redundant_channels
from tests.client.conftest import Pixels, assert_same_digit, cut_out, likeness


def encoded(pixels: Pixels, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


class TestDecode:
    @pytest.mark.parametrize("form", ["PNG", "GIF", "BMP", "TIFF", "PPM"])
    def test_lossless_formats_give_their_pixels(self, form: str, page: Pixels) -> None:
        decoded = images.decode(encoded(page, form))
        grey = decoded if decoded.ndim == 2 else decoded[:, :, 0]
        assert np.array_equal(grey, page)

    @pytest.mark.parametrize("form", ["JPEG", "WEBP"])
    def test_lossy_formats_give_nearly_their_pixels(self, form: str, page: Pixels) -> None:
        decoded = images.decode(encoded(page, form, quality=95))
        grey = decoded if decoded.ndim == 2 else decoded[:, :, 0]
        assert np.abs(grey.astype(int) - page).mean() < 2

    def test_colours_come_as_rgb_and_alpha_last(self) -> None:
        colours = np.array([[[250, 20, 30, 255], [20, 250, 30, 128]]], np.uint8)
        assert np.array_equal(images.decode(encoded(colours, "PNG")), colours)
        assert np.array_equal(images.decode(encoded(colours[:, :, :3], "PNG")), colours[:, :, :3])
        assert np.array_equal(images.decode(encoded(colours[:, :, :3], "BMP")), colours[:, :, :3])

    @pytest.mark.parametrize("mode", ["1", "P", "LA", "I;16", "CMYK"])
    def test_every_kind_of_pixel_is_read(self, mode: str, page: Pixels, seven: Pixels) -> None:
        image = Image.fromarray(page)
        if mode == "I;16":
            image = Image.fromarray(page.astype(np.uint16) * 257)
        buffer = io.BytesIO()
        image.convert(mode).save(buffer, "TIFF" if mode == "CMYK" else "PNG")
        assert_same_digit(images.normalise(images.decode(buffer.getvalue())), seven)

    def test_a_photograph_is_turned_as_its_exif_says(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        tall = images.decode(encoded(np.zeros((20, 40), np.uint8), "JPEG", exif=exif))
        assert tall.shape[:2] == (40, 20)

    @pytest.mark.parametrize(
        ("width", "height", "decoded"),
        [(4000, 3000, 500), (640, 480, 320), (1280, 960, 1280), (4160, 3120, 2080), (500, 400, 500)],
    )
    def test_a_photograph_is_decoded_reduced_where_that_loses_nothing(
        self, width: int, height: int, decoded: int
    ) -> None:
        photograph = encoded(np.full((height, width), 200, np.uint8), "JPEG")
        assert images.decode(photograph).shape == (decoded * height // width, decoded)

    @pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
    @pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
    def test_a_file_that_ends_early_is_refused(self, form: str, part: float) -> None:
        noise = np.random.default_rng(0).integers(0, 255, (60, 60), np.uint8)
        data = encoded(noise, form)
        with pytest.raises((TruncatedImageError, NotAnImageError)):
            images.decode(data[: int(len(data) * part)])

    def test_a_damaged_png_is_refused(self, page: Pixels) -> None:
        data = bytearray(encoded(page, "PNG"))
        data[len(data) // 2] ^= 0xFF
        with pytest.raises(TruncatedImageError):
            images.decode(bytes(data))

    @pytest.mark.parametrize("data", [b"", b"hello", b"%PDF-1.4", b"\x00" * 100, b"<svg/>"])
    def test_what_is_no_image_is_refused(self, data: bytes) -> None:
        with pytest.raises(NotAnImageError):
            images.decode(data)

    @pytest.mark.parametrize("form", ["PNG", "GIF", "BMP", "TIFF", "WEBP", "JPEG"])
    def test_too_many_pixels_are_refused(self, form: str) -> None:
        data = encoded(np.zeros((100, 100), np.uint8), form)
        with pytest.raises(ImageTooLargeError, match="100×100"):
            images.decode(data, max_pixels=2000)

    def test_a_bomb_is_refused_before_it_is_decoded(self) -> None:
        bomb = encoded(np.zeros((8000, 8000), np.uint8), "PNG")
        assert len(bomb) < 100_000
        with pytest.raises(ImageTooLargeError):
            images.decode(bomb)

    @given(
        st.binary(max_size=200),
        st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM"]),
    )
    def test_any_bytes_give_pixels_or_an_image_error(self, rest: bytes, magic: bytes) -> None:
        with contextlib.suppress(ImageError):
            assert images.decode(magic + rest).dtype == np.uint8


class TestNormalise:
    def test_mnist_itself_comes_back_bit_for_bit(self, digits: Any) -> None:
        for image in digits.images[:1000]:
            assert np.array_equal(images.normalise(image), image)
            assert np.array_equal(images.normalise(255 - image), image)
            assert np.array_equal(images.normalise(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)), image)

    @pytest.mark.parametrize("label", range(10))
    def test_a_digit_anywhere_on_a_page_is_found(self, label: int, digits: Any) -> None:
        digit = digits.one(label)
        large = cv2.resize(digit, (140, 140), interpolation=cv2.INTER_CUBIC)
        page = 230 - np.pad(large, ((30, 250), (200, 40))) // 2
        assert_same_digit(images.normalise(page), digit)

    @pytest.mark.parametrize(
        "change",
        [
            lambda page: 255 - page,
            lambda page: cv2.cvtColor(page, cv2.COLOR_GRAY2RGB),
            lambda page: page[:, :, None],
            lambda page: page / 255,
            lambda page: page.astype(np.uint16) * 257,
            lambda page: cv2.resize(page, None, fx=0.2, fy=0.2, interpolation=cv2.INTER_AREA),
            lambda page: cv2.resize(page, None, fx=3, fy=3),
            lambda page: page * np.linspace(0.5, 1, page.shape[1])[None, :],
            lambda page: np.clip(page + np.random.default_rng(0).normal(0, 8, page.shape), 0, 255),
        ],
        ids=["inverted", "colour", "channel", "floats", "16-bit", "small", "large", "shade", "noise"],
    )
    def test_paper_light_and_size_do_not_matter(
        self, change: Callable[[Any], Any], page: Pixels, seven: Pixels
    ) -> None:
        assert_same_digit(images.normalise(change(page)), seven)

    @pytest.mark.parametrize("ink", [(0, 0, 0), (255, 255, 255), (200, 30, 30)])
    def test_transparent_drawings_are_read_whatever_their_ink(
        self, ink: tuple[int, int, int], page: Pixels, seven: Pixels
    ) -> None:
        drawing = np.zeros((*page.shape, 4), np.uint8)
        drawing[:, :, :3] = ink
        drawing[:, :, 3] = np.clip((215 - page.astype(int)) * 1.5, 0, 255)
        assert_same_digit(images.normalise(drawing), seven)

    @pytest.mark.parametrize("squares", [False, True], ids=["ruled", "squared"])
    def test_printed_lines_are_no_ink(self, squares: bool, page: Pixels, seven: Pixels) -> None:
        lined = page.copy()
        lined[17::36] = np.minimum(lined[17::36], 150)
        if squares:
            lined[:, 11::36] = np.minimum(lined[:, 11::36], 150)
        assert_same_digit(images.normalise(lined), seven)

    def test_a_floating_piece_is_part_of_the_digit(self, digits: Any) -> None:
        five = digits.one(5).copy()
        five[10:12] = 0
        page = 230 - np.pad(cv2.resize(five, (140, 140)), ((60, 100), (90, 70))) // 2
        found = images.normalise(page)
        assert_same_digit(found, five)
        assert cv2.connectedComponents((found > 64).astype(np.uint8))[0] >= 3

    def test_the_digit_is_scaled_and_centred_as_in_mnist(self, page: Pixels) -> None:
        found = images.normalise(page)
        rows, columns = np.nonzero(found)
        assert max(np.ptp(rows), np.ptp(columns)) == 19
        mass = found.astype(float)
        centre = [(mass.sum(axis=1 - axis) @ np.arange(28)) / mass.sum() for axis in (0, 1)]
        assert centre == pytest.approx([14, 14], abs=0.51)
        assert found.max() == 255

    def test_a_one_that_fills_its_own_bounds_is_found(self) -> None:
        page = np.full((200, 200), 255, np.uint8)
        page[40:160, 95:105] = 0
        one = images.normalise(page)
        assert np.flatnonzero(one.max(axis=1) > 200).size == 20
        assert np.flatnonzero(one.any(axis=0)).size in (2, 3)

    @pytest.mark.parametrize("label", [0, 3, 4, 5, 6, 7, 8, 9])
    @pytest.mark.parametrize("scale", [1, 8])
    def test_a_digit_that_fills_the_picture_is_no_paper(self, label: int, scale: int, digits: Any) -> None:
        digit = digits.one(label)
        rows, columns = (np.flatnonzero(digit.max(axis=axis) > 127) for axis in (1, 0))
        tight = digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        picture = cv2.resize(tight, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        assert_same_digit(images.normalise(255 - picture), digit)

    def test_specks_are_no_ink(self, page: Pixels, seven: Pixels) -> None:
        page = page.copy()
        page[350:353, 30:33] = 40
        page[20:23, 480:483] = 40
        assert_same_digit(images.normalise(page), seven)

    @pytest.mark.parametrize(
        "blank",
        [
            np.zeros((28, 28), np.uint8),
            np.full((28, 28), 255, np.uint8),
            np.full((300, 200, 3), 180, np.uint8),
            np.zeros((50, 50, 4), np.uint8),
            np.tile(np.linspace(120, 220, 300).astype(np.uint8), (200, 1)),
            np.random.default_rng(0).normal(200, 4, (300, 300)).astype(np.uint8),
            np.zeros((1, 1), np.uint8),
        ],
        ids=["black", "white", "colour", "transparent", "shade", "noise", "pixel"],
    )
    def test_a_blank_image_has_no_digit(self, blank: Pixels) -> None:
        with pytest.raises(NoDigitError):
            images.normalise(blank)

    @given(
        arrays.arrays(
            np.uint8,
            st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3, 4])),
        )
    )
    def test_any_image_gives_a_framed_one_or_no_digit(self, image: Pixels) -> None:
        try:
            found = images.normalise(image)
        except NoDigitError:
            return
        assert found.shape == (28, 28)
        assert found.dtype == np.uint8
        assert found.max() > 0


@pytest.mark.parametrize(("side", "right", "down"), [(28, 0, 0), (12, 0, 0), (20, 4, -3), (12, -8, 8)])
@pytest.mark.parametrize("label", range(10))
def test_a_digit_of_another_size_or_elsewhere_on_28_pixels_is_framed(
    label: int, side: int, right: int, down: int, digits: Any
) -> None:
    digit = digits.one(label)
    cut = cut_out(digit)
    scale = side / max(cut.shape)
    cut = cv2.resize(cut, None, fx=scale, fy=scale)
    row, column = (28 - cut.shape[0]) // 2 + down, (28 - cut.shape[1]) // 2 + right
    row, column = min(max(row, 0), 28 - cut.shape[0]), min(max(column, 0), 28 - cut.shape[1])
    picture = np.zeros((28, 28), np.uint8)
    picture[row : row + cut.shape[0], column : column + cut.shape[1]] = cut
    assert_same_digit(images.normalise(picture), digit)
    assert_same_digit(images.normalise(255 - picture), digit)


@pytest.mark.parametrize("most", [15, 16, 255])
def test_a_small_scan_may_have_few_levels(most: int, seven: Pixels) -> None:
    small = cv2.resize(seven[4:24, 4:24], (8, 8), interpolation=cv2.INTER_AREA)
    assert_same_digit(images.normalise(np.rint(small / small.max() * most)), seven)


@pytest.mark.parametrize(("height", "least"), [(8, 190), (12, 198)])
def test_a_small_scan_may_end_where_the_digit_does(height: int, least: int, digits: Any) -> None:
    for turned in (False, True):
        same = 0
        for digit in digits.images[:200]:
            cut = cut_out(digit)
            size = (max(3, round(cut.shape[1] * height / cut.shape[0])), height)
            small = cv2.resize(cut, size, interpolation=cv2.INTER_AREA)
            same += likeness(images.normalise(255 - small if turned else small), digit) > 0.85
        assert same >= least


def test_many_are_framed_as_each_of_them_is(digits: Any) -> None:
    moved = np.roll(digits.images[:50], 3, axis=2)
    framed = digits.images[:50]
    pictures = np.concatenate((framed, 255 - framed, framed // 3, moved, np.zeros_like(framed[:1])))
    assert list(images.are_normalized(pictures)) == [images.is_normalized(picture) for picture in pictures]
    assert images.are_normalized(pictures).sum() == 50


GREY = np.random.default_rng(0).integers(0, 256, (40, 30), np.uint8)


def in_colours(*alpha: int) -> Pixels:
    """The picture in equal red, green and blue, and alpha where it is given."""
    return np.stack([GREY] * 3 + [np.full_like(GREY, level) for level in alpha], axis=2)


@pytest.mark.parametrize("picture", [GREY, in_colours(), in_colours(255)])
def test_what_shows_no_colours_is_grey(picture: Pixels) -> None:
    assert np.array_equal(drop_redundant_channels(picture), GREY)


@pytest.mark.parametrize("row", [0, 5, 39])
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_a_single_pixel_in_colour_is_kept(channel: int, row: int) -> None:
    picture = in_colours()
    picture[row, 7, channel] ^= 1
    assert np.array_equal(drop_redundant_channels(picture), picture)


def test_what_shines_through_is_kept() -> None:
    assert drop_redundant_channels(in_colours(254)).shape == (40, 30, 4)
