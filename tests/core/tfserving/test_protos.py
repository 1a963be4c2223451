"""Vendored protos compared with the official ones of tensorflow-serving-api and tensorflow."""

from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2, predict_pb2
from tensorflow_serving.config import model_server_config_pb2

from digit_core.tfserving import protos

OFFICIAL_MODULES = (
    *(get_model_metadata_pb2, get_model_status_pb2, model_pb2),
    *(model_server_config_pb2, predict_pb2, tensor_pb2),
)
NAMES = [name for name, annotation in protos.__annotations__.items() if annotation is Any]
PARTIAL = {"tensorflow.TensorProto", "tensorflow.serving.PredictRequest"}
"""Messages without some official fields. All others are complete: configuration files may name any field."""


def collect(descriptor: Any, found: dict[str, Any]) -> dict[str, Any]:
    """Return the descriptors of a message, and of all messages and enums that it refers to, by name."""
    if descriptor is None or descriptor.full_name in found:
        return found
    found[descriptor.full_name] = descriptor
    for field in getattr(descriptor, "fields", ()):
        collect(field.message_type, found)
        collect(field.enum_type, found)
    return found


def fields(descriptor: Any) -> dict[int, Any]:
    """Return the names of an enum's values, or the fields of a message, by number."""
    if hasattr(descriptor, "values"):
        return {value.number: value.name for value in descriptor.values}
    proto = DescriptorProto()
    descriptor.CopyToProto(proto)
    for each in proto.field:
        # Written out or not, the defaults are the same.
        each.ClearField("json_name")
        each.ClearField("options")
    return {each.number: (each, descriptor.fields_by_number[each.number].is_packed) for each in proto.field}


@pytest.mark.parametrize("name", NAMES)
def test_message_and_all_it_refers_to_equal_the_official_ones(name: str) -> None:
    official_class = next(getattr(module, name) for module in OFFICIAL_MODULES if hasattr(module, name))
    officials = collect(official_class.DESCRIPTOR, {})
    for full_name, vendored in collect(getattr(protos, name).DESCRIPTOR, {}).items():
        ours, theirs = fields(vendored), fields(officials[full_name])
        assert ours == {number: theirs[number] for number in ours}
        is_enum = hasattr(vendored, "values")
        assert is_enum or full_name in PARTIAL or ours.keys() == theirs.keys()


def test_data_types_and_version_states_equal_official() -> None:
    assert (protos.DT_FLOAT, protos.DT_UINT8) == (types_pb2.DT_FLOAT, types_pb2.DT_UINT8)
    official = get_model_status_pb2.ModelVersionStatus.State
    assert protos.ModelVersionStatus.State.items() == official.items()
