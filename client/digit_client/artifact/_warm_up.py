"""Process of a verification: `python -m digit_client.artifact._warm_up FOLDER` loads a version and asks it.

Exit status 1 means that the version fails, NO_TENSORFLOW that TensorFlow is not installed; the last line of
standard error has the reason. No other module of this package imports TensorFlow.
"""

import sys

NO_TENSORFLOW = 3
"""Exit status."""


def warm_up(folder: str) -> None:
    """Load the SavedModel in a folder, and send it its warm-up requests. Raise the error of a failure."""
    import tensorflow as tf
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    signatures = tf.saved_model.load(folder).signatures
    count = 0
    for record in tf.data.TFRecordDataset(f"{folder}/assets.extra/tf_serving_warmup_requests"):
        request = PredictionLog.FromString(record.numpy()).predict_log.request
        name = request.model_spec.signature_name or "serving_default"
        inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
        for key, values in signatures[name](**inputs).items():
            if values.dtype.is_floating and not bool(tf.reduce_all(tf.math.is_finite(values))):
                raise ValueError(f"the output {key} of the signature {name} is not finite")
        count += 1
    if not count:
        raise ValueError("there are no warm-up requests")


if __name__ == "__main__":
    try:
        warm_up(sys.argv[1])
    except ImportError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(NO_TENSORFLOW)
    # TensorFlow does not document its exceptions for damaged or incompatible SavedModels.
    except Exception as error:
        sys.exit(f"\n{str(error).strip().partition(chr(10))[0]}")
