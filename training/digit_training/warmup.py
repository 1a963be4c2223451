"""Requests that TensorFlow Serving runs through a version before it answers the first real one."""

from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from digit_training.dataset import Examples
from digit_training.saved_model import IMAGES, SERVING_DEFAULT

MODEL_NAME = "digits"
BATCH_SIZES = (1, 32)


def write(path: Path, examples: Examples) -> None:
    """Writes a TFRecord file of one request for each signature and batch size."""
    with tf.io.TFRecordWriter(str(path)) as records:
        for request in _requests(examples):
            log = PredictionLog(predict_log={"request": request})
            records.write(log.SerializeToString())


def _requests(examples: Examples) -> Iterator[PredictRequest]:
    for size in BATCH_SIZES:
        batch = examples[:size]
        for signature, key, values in (
            (SERVING_DEFAULT, "pixels", batch.pixels),
            (IMAGES, "images", batch.images),
        ):
            request = PredictRequest()
            request.model_spec.name = MODEL_NAME
            request.model_spec.signature_name = signature
            request.inputs[key].CopyFrom(tf.make_tensor_proto(values))
            yield request
