"""Drawings made on a screen: ink on a ground of exactly one colour, which no photograph has."""

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]


def departure(picture: Picture) -> NDArray[np.uint8] | None:
    """How far each pixel departs from the ground, in levels: uint8 [h, w], cropped to what departs.

    Takes uint8 [h, w] or [h, w, 3]. None where it is no drawing: where the border has several colours, or
    most of the picture another one. Of a drawing in a frame it is what departs from the ground within.
    """
    if not has_plain_border(picture):
        return None
    levels = _levels(picture, picture[0, 0])
    left, top, width, height = cv2.boundingRect(levels)
    box = slice(top, top + height), slice(left, left + width)
    drawn = levels[box]
    if 0 < drawn.size < levels.size:
        framed = departure(picture[box])
        # A bar has nothing within, and a rectangular 0 nothing but a rectangle.
        if framed is not None and cv2.countNonZero(framed) < framed.size:
            return framed
    return None if 2 * cv2.countNonZero(drawn) > levels.size else drawn


def has_plain_border(picture: Picture) -> bool:
    """Whether the picture is of exactly one colour along its four sides."""
    sides = (picture[0], picture[-1], picture[:, 0], picture[:, -1])
    return not any((side != picture[0, 0]).any() for side in sides)


def _levels(picture: Picture, ground: NDArray[np.uint8]) -> Picture:
    if picture.ndim == 2:
        # Of a column of four pixels and a number OpenCV would make two pictures.
        return np.asarray(cv2.absdiff(picture, np.full_like(picture, ground)))
    red, green, blue = cv2.split(cv2.absdiff(picture, tuple(ground.tolist())))
    return np.asarray(cv2.max(cv2.max(red, green), blue))
