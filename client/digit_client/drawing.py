"""Drawings made on a screen: ink on a ground of exactly one colour, which no photograph has."""

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]


def departure(picture: Picture) -> NDArray[np.uint8] | None:
    """How far each pixel departs from the ground, in levels: uint8 [h, w], cropped to what departs.

    Takes uint8 [h, w] or [h, w, 3]. None where it is no drawing: where the border has several colours, or
    most of the picture another one.
    """
    sides = (picture[0], picture[-1], picture[:, 0], picture[:, -1])
    if any((side != picture[0, 0]).any() for side in sides):
        return None
    levels = _levels(picture[_drawn_on(picture)], picture[0, 0])
    return None if 2 * cv2.countNonZero(levels) > picture.shape[0] * picture.shape[1] else levels


def _drawn_on(picture: Picture) -> tuple[slice, slice]:
    """The rows and columns between which all is that departs from the ground."""
    if picture.ndim == 2:
        departs = (picture != picture[0, 0]).view(np.uint8)
    else:
        ground = tuple(picture[0, 0].tolist())
        departs = cv2.bitwise_not(cv2.inRange(picture, ground, ground))
    left, top, width, height = cv2.boundingRect(departs)
    return slice(top, top + height), slice(left, left + width)


def _levels(picture: Picture, ground: NDArray[np.uint8]) -> Picture:
    if picture.ndim == 2:
        # By NumPy: OpenCV takes a column of four pixels and a number for two pictures.
        return np.asarray(np.maximum(picture, ground) - np.minimum(picture, ground))
    if not picture.size:
        return picture[:, :, 0]
    red, green, blue = np.moveaxis(cv2.absdiff(picture, tuple(ground.tolist())), 2, 0)
    return np.asarray(np.maximum(np.maximum(red, green), blue))
