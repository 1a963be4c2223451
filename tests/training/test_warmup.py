from pathlib import Path

import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog


def test_the_published_model_answers_every_warmup_request(models: Path) -> None:
    version = models / "1"
    signatures = tf.saved_model.load(str(version)).signatures
    seen = set()
    for record in tf.data.TFRecordDataset(str(version / "assets.extra" / "tf_serving_warmup_requests")):
        request = PredictionLog.FromString(record.numpy()).predict_log.request
        name = request.model_spec.signature_name
        inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
        answer = signatures[name](**{key: tf.constant(value) for key, value in inputs.items()})
        assert request.model_spec.name == "digits"
        seen.add((name, len(answer["probabilities"])))
    assert seen == {("serving_default", 1), ("serving_default", 32), ("images", 1), ("images", 32)}
