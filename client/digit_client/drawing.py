"""Drawings made on a screen: ink on a ground of exactly one colour, which no photograph has."""

from functools import reduce

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
    levels = _levels(picture)
    left, top, width, height = cv2.boundingRect(levels)
    levels = levels[top : top + height, left : left + width]
    return None if 2 * cv2.countNonZero(levels) > picture.shape[0] * picture.shape[1] else levels


def _levels(picture: Picture) -> NDArray[np.uint8]:
    # Each channel by itself, which keeps what is worked on small enough to be quick. absdiff would take one
    # of four pixels by one for another number like the one that it is to be compared with.
    channels = [cv2.convertScaleAbs(channel, beta=-float(channel[0, 0])) for channel in cv2.split(picture)]
    return np.asarray(reduce(cv2.max, channels), np.uint8)
