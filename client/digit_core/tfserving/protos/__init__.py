"""TensorFlow Serving's protobuf messages, without TensorFlow.

The build compiles the .proto files beside this module to descriptors (`hatch_build.py`); this module creates
the message classes from them at run time. Generated Python code would tie the package to one or two major
versions of the protobuf runtime. The descriptor pool is private, so that the official modules
`tensorflow_serving.apis` can be imported in the same process.
"""

from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_pool = DescriptorPool()
for _file in FileDescriptorSet.FromString(Path(__file__).with_name("descriptors.binpb").read_bytes()).file:
    _pool.AddSerializedFile(_file.SerializeToString())


def _message(name: str) -> Any:
    return GetMessageClass(_pool.FindMessageTypeByName(name))


_data_types = _pool.FindEnumTypeByName("tensorflow.DataType").values_by_name
DT_FLOAT: int = _data_types["DT_FLOAT"].number
DT_UINT8: int = _data_types["DT_UINT8"].number

GetModelMetadataRequest: Any = _message("tensorflow.serving.GetModelMetadataRequest")
GetModelMetadataResponse: Any = _message("tensorflow.serving.GetModelMetadataResponse")
GetModelStatusRequest: Any = _message("tensorflow.serving.GetModelStatusRequest")
GetModelStatusResponse: Any = _message("tensorflow.serving.GetModelStatusResponse")
ModelServerConfig: Any = _message("tensorflow.serving.ModelServerConfig")
ModelSpec: Any = _message("tensorflow.serving.ModelSpec")
ModelVersionStatus: Any = _message("tensorflow.serving.ModelVersionStatus")
PredictRequest: Any = _message("tensorflow.serving.PredictRequest")
PredictResponse: Any = _message("tensorflow.serving.PredictResponse")
TensorProto: Any = _message("tensorflow.TensorProto")
