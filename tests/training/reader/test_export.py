"""Export of the reader: a SavedModel that takes pages of any size."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from digit_core.artifact.verification import verify
from digit_core.artifact.versions import Version
from digit_core.images.reading import CLASSES
from digit_training.export import read_weights
from digit_training.reader.detector import detector
from digit_training.reader.export import write_reader


def test_written_reader_takes_any_size_and_warms_up(tmp_path: Path) -> None:
    folder = tmp_path / "1"
    network = detector()
    write_reader(network, {"model": "reader"}, folder)
    verify(folder)
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    for shape in ((2, 100, 37), (1, 5, 7), (1, 640, 480)):
        found = signature(pages=tf.zeros(shape, tf.uint8))
        assert found["boxes"].shape[0] == shape[0]
        assert found["classes"].shape[1:] == (found["scores"].shape[1], CLASSES)
    saved = read_weights(Version("reader", 1, folder), detector(), leading=0)
    for written, weights in zip(saved, network.get_weights(), strict=True):
        assert np.array_equal(written, weights)
