import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from digit_training import pictures
from digit_training.dataset import Dataset


def opened(address: str) -> NDArray[np.uint8]:
    kind, _, data = address.partition(",")
    assert kind == "data:image/png;base64"
    return np.array(Image.open(io.BytesIO(base64.b64decode(data))))


def test_digits_stand_side_by_side(dataset: Dataset) -> None:
    images = dataset.train.images[:3]
    assert np.array_equal(opened(pictures.digits(images)), np.hstack(list(images)))


def test_what_speaks_for_is_blue_and_against_is_red() -> None:
    values = np.zeros((28, 28), np.float32)
    values[0, :3] = 1, -1, 4
    picture = opened(pictures.signed(values, limit=2)).astype(int)
    (blue, red, strong), ground = picture[0, :3], picture[1, 1]
    assert blue[2] > blue[0] + 100
    assert red[0] > red[2] + 100
    assert (blue[3], red[3], strong[3], ground[3]) == (127, 127, 255, 0)
