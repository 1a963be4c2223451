"""TensorFlow Serving's protocol messages, without TensorFlow.

The generated modules lie in the packages `tensorflow` and `tensorflow_serving`, and importing any of them
would run TensorFlow's own `__init__`: two seconds and half a gigabyte. While they are imported here, an
empty module stands in for `tensorflow`. A later `import tensorflow` still works.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from digit_client import stand_in


@contextmanager
def _without_tensorflow() -> Iterator[None]:
    if "tensorflow" in sys.modules:
        yield
        return
    sys.modules["tensorflow"] = stand_in.tensorflow()
    try:
        yield
    finally:
        del sys.modules["tensorflow"]


with _without_tensorflow():
    from tensorflow.core.framework.tensor_pb2 import TensorProto
    from tensorflow.core.framework.types_pb2 import DT_FLOAT, DT_UINT8
    from tensorflow_serving.apis.get_model_metadata_pb2 import (
        GetModelMetadataRequest,
        GetModelMetadataResponse,
    )
    from tensorflow_serving.apis.get_model_status_pb2 import (
        GetModelStatusRequest,
        GetModelStatusResponse,
        ModelVersionStatus,
    )
    from tensorflow_serving.apis.model_pb2 import ModelSpec
    from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

__all__ = [
    "DT_FLOAT",
    "DT_UINT8",
    "GetModelMetadataRequest",
    "GetModelMetadataResponse",
    "GetModelStatusRequest",
    "GetModelStatusResponse",
    "ModelSpec",
    "ModelVersionStatus",
    "PredictRequest",
    "PredictResponse",
    "TensorProto",
]
