"""TensorFlow Serving's protocol messages, without TensorFlow.

The generated modules lie in the packages `tensorflow` and `tensorflow_serving`, and importing any of them
would run TensorFlow's own `__init__`: two seconds and half a gigabyte. While they are imported here, an
empty module stands in for `tensorflow` that knows only where its files are. A later `import tensorflow`
still works.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType


@contextmanager
def _without_tensorflow() -> Iterator[None]:
    if "tensorflow" in sys.modules:
        yield
        return
    spec = find_spec("tensorflow")
    stand_in = ModuleType("tensorflow")
    stand_in.__path__ = list(spec.submodule_search_locations or ()) if spec else []
    sys.modules["tensorflow"] = stand_in
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
