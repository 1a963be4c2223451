"""Reader in NumPy and OpenCV: connected components as tall as digits, of any class."""

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_core.artifact.task_card import READER_NAME
from digit_core.reading.peaks import Peaks
from digit_core.tfserving.codec import PAGES_INPUT
from digit_core.tfserving.protos import DT_FLOAT, ModelSpec, PredictRequest, PredictResponse, TensorProto

_MIN_HEIGHT = 9


def find_components(page: NDArray[np.uint8]) -> Peaks:
    """Return a peak for each component of a grey page, uint8 [h, w], that differs from the paper.

    The classes are equally likely, so that the digits' model decides. A low component is a sign.
    """
    contrast = np.abs(page.astype(int) - int(np.median(page)))
    # Closing joins the parts of a broken digit.
    mask = cv2.morphologyEx((contrast > 60).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    boxes = stats[1:count, :4].astype(np.float32)
    boxes = boxes[boxes[:, 2] * boxes[:, 3] > 8]
    classes = np.zeros((len(boxes), 11), np.float32)
    is_sign = boxes[:, 3] < _MIN_HEIGHT
    classes[is_sign, 10] = 1
    classes[~is_sign, :10] = 0.1
    return Peaks(np.full(len(boxes), 0.98, np.float32), classes, boxes)


def answer_page(request: PredictRequest) -> PredictResponse:
    """Answer a request to the reader as TensorFlow Serving does."""
    tensor = request.inputs[PAGES_INPUT]
    _, height, width = (dim.size for dim in tensor.tensor_shape.dim)
    peaks = find_components(np.frombuffer(tensor.tensor_content, np.uint8).reshape(height, width))
    response = PredictResponse(model_spec=ModelSpec(name=READER_NAME))
    for name in ("scores", "classes", "boxes"):
        encode(getattr(peaks, name)[np.newaxis], response.outputs[name])
    return response


def encode(array: NDArray[np.floating], tensor: TensorProto) -> None:
    """Fill an output with the array as float32, as TensorFlow Serving does."""
    tensor.dtype = DT_FLOAT
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = array.astype(np.float32).tobytes()
